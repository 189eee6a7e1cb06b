/** Fetched and decoded pictures (images and maps), the next ones ahead of time, in bounded memory. */

import { Refused } from "./api.js";

const BUDGET = 384 * 2 ** 20; // bytes decoded; an image of 4000 x 3000 with its halves has 64 MB
const SMALL_ENOUGH = 1200; // pixels on the longer side, below which no further half is made

/** A decoded picture and its halves, quarters ...: drawing a large one small is fast and smooth. */
class Picture {
  constructor(levels) {
    this.levels = levels;
    this.width = levels[0].width;
    this.height = levels[0].height;
    this.bytes = levels.reduce((sum, level) => sum + 4 * level.width * level.height, 0);
  }

  /** The smallest level that has at least `scale` of the full resolution. */
  levelFor(scale) {
    const wanted = Math.floor(Math.log2(1 / Math.min(1, scale)) + 0.01);
    return this.levels[Math.min(wanted, this.levels.length - 1)];
  }

  /** True once it had to make room: it can no longer be drawn. */
  get closed() {
    return this.levels[0].width === 0;
  }

  close() {
    this.levels.forEach((level) => level.close());
  }
}

/** Decode to the pixel grid of the file: a rotation in its metadata is heeded only if the server's size says so. */
async function decodeFull(blob, size) {
  const plain = await createImageBitmap(blob, { imageOrientation: "none" });
  if (!size || (plain.width === size.width && plain.height === size.height)) return plain;
  const turned = await createImageBitmap(blob);
  if (turned.width === size.width && turned.height === size.height) {
    plain.close();
    return turned;
  }
  turned.close();
  return plain;
}

async function decode(blob, size) {
  const levels = [await decodeFull(blob, size)];
  for (let last = levels[0]; Math.max(last.width, last.height) > SMALL_ENOUGH; last = levels.at(-1)) {
    levels.push(await createImageBitmap(last, {
      resizeWidth: Math.max(1, last.width >> 1),
      resizeHeight: Math.max(1, last.height >> 1),
      resizeQuality: "medium",
    }));
  }
  return new Picture(levels);
}

async function fetchPicture(url, size) {
  const reply = await fetch(url, { cache: "no-store" });
  if (!reply.ok) {
    const { error } = await reply.json().catch(() => ({}));
    throw new Refused(error ?? `The server replied ${reply.status}.`, reply.status);
  }
  return decode(await reply.blob(), size);
}

export class PictureCache {
  #decoded = new Map(); // url -> Picture, the longest unused first
  #loading = new Map(); // url -> promise of a Picture
  #wanted = []; // [{url, size}], the most urgent first
  #ahead = false;

  /** The picture if it is decoded, else undefined. */
  get(url) {
    const picture = this.#decoded.get(url);
    if (picture) {
      this.#decoded.delete(url);
      this.#decoded.set(url, picture);
    }
    return picture;
  }

  /** The picture, fetched if need be. Throws Refused, or TypeError without a connection. */
  async load({ url, size }) {
    const ready = this.get(url);
    if (ready) return ready;
    if (!this.#loading.has(url)) {
      const work = fetchPicture(url, size)
        .then((picture) => {
          this.#decoded.set(url, picture);
          return picture;
        })
        .finally(() => this.#loading.delete(url));
      this.#loading.set(url, work);
    }
    return this.#loading.get(url);
  }

  /** Say what is on the screen and what will be next; all of it is fetched ahead as memory allows. */
  want(requests) {
    this.#wanted = requests;
    this.#evict();
    if (!this.#ahead) this.#fetchAhead();
  }

  async #fetchAhead() {
    this.#ahead = true;
    const failed = new Set();
    for (;;) {
      const next = this.#wanted.find(({ url }) => !this.#decoded.has(url) && !failed.has(url));
      const urgent = next && this.#wanted.indexOf(next) <= 1;
      if (!next || (!urgent && this.#bytes() + this.#largest() > BUDGET)) break;
      try {
        await this.load(next);
      } catch {
        failed.add(next.url); // tried again, and reported, once it is really needed
      }
      this.#evict();
    }
    this.#ahead = false;
  }

  #bytes() {
    return [...this.#decoded.values()].reduce((sum, picture) => sum + picture.bytes, 0);
  }

  #largest() {
    return Math.max(0, ...[...this.#decoded.values()].map((picture) => picture.bytes));
  }

  #evict() {
    const kept = new Set(this.#wanted.map(({ url }) => url));
    for (const [url, picture] of [...this.#decoded]) {
      if (this.#bytes() + this.#largest() <= BUDGET) return;
      if (kept.has(url)) continue;
      this.#decoded.delete(url);
      picture.close();
    }
  }
}
