/** The loupe: whole image pixels as squares, the asked one outlined from outside. */

import { recall, remember } from "./settings.js";
import { fitCanvas } from "./stage.js";

const SIZES = [8, 14, 24, 4]; // CSS pixels an image pixel, in the order of the button

export class Loupe {
  #at = null;
  #picture = null;

  constructor(button) {
    this.button = button;
    this.canvas = button.querySelector("canvas");
    this.label = button.querySelector("#loupe-scale");
    const stored = recall("loupe", SIZES[0]);
    this.size = SIZES.includes(stored) ? stored : SIZES[0];
    new ResizeObserver(() => this.draw()).observe(button);
  }

  /** Look at pixel {y, x} of a picture; null: at nothing. */
  look(picture, at) {
    this.#picture = picture;
    this.#at = at;
    this.draw();
  }

  magnify() {
    this.size = SIZES[(SIZES.indexOf(this.size) + 1) % SIZES.length];
    remember("loupe", this.size);
    this.draw();
  }

  draw() {
    const width = this.button.clientWidth;
    const height = this.button.clientHeight;
    const context = fitCanvas(this.canvas, width, height);
    context.clearRect(0, 0, width, height);
    this.label.textContent = `${this.size}×`;
    if (!this.#picture || this.#picture.closed || !this.#at || width < 2) return;
    const ratio = devicePixelRatio || 1;
    const size = Math.max(1, Math.round(this.size * ratio)); // whole device pixels: all squares are equal
    context.setTransform(1, 0, 0, 1, 0, 0);
    const left = Math.round((this.canvas.width - size) / 2);
    const top = Math.round((this.canvas.height - size) / 2);
    this.#paint(context, left, top, size);
    outline(context, left, top, size, Math.max(1, Math.round(ratio)));
  }

  /** (left, top): where the pixel looked at lies, in device pixels. */
  #paint(context, left, top, size) {
    const { y, x } = this.#at;
    const full = this.#picture.levels[0];
    const firstX = Math.max(0, x - Math.ceil(left / size));
    const firstY = Math.max(0, y - Math.ceil(top / size));
    const endX = Math.min(full.width, x + Math.ceil((this.canvas.width - left) / size));
    const endY = Math.min(full.height, y + Math.ceil((this.canvas.height - top) / size));
    if (endX <= firstX || endY <= firstY) return;
    context.imageSmoothingEnabled = false;
    context.drawImage(full, firstX, firstY, endX - firstX, endY - firstY,
      left + (firstX - x) * size, top + (firstY - y) * size, (endX - firstX) * size, (endY - firstY) * size);
  }
}

/** A light frame just outside the pixel and a dark one just outside that, a stroke wide each. */
function outline(context, left, top, size, stroke) {
  for (const [step, colour] of [[1, "#ffffff"], [2, "#000000"]]) {
    const out = step * stroke - stroke / 2;
    context.strokeStyle = colour;
    context.lineWidth = stroke;
    context.strokeRect(left - out, top - out, size + 2 * out, size + 2 * out);
  }
}
