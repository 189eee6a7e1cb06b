/**
 * The course of a session: show the question, send the answer, go on only when it is on disk.
 *
 * Keys between an answer and the next question are neither answers nor kept: the person has not
 * seen that pixel, so the page says that they were ignored. The exception is Backspace, which is
 * about the pixel they did see: it is done as soon as the reply is there.
 */

import { Refused } from "./api.js";
import { Stopwatch } from "./stopwatch.js";

const ROLLED_MS = 100; // a second key hit with the first one this soon is the same stroke of the hand
const STRUCK_MS = 200; // for which the last act's key is a stroke that went double, as worn keys do: nobody sees as fast
const DOUBLE_CLICK_MS = 250;
const SETTLE_MS = 250; // a question that came by itself takes no key for so long
const CHECKS_EVERY = 2; // seconds between looks at the server while the person thinks
const MOST_MARKS = 2000;

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Resolves once the frame that shows what was just drawn has been handed over. */
function afterFrame() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    requestAnimationFrame(() => port2.postMessage(null));
  });
}

/** The key of an event, "" for a click or none. */
function keyOf(event) {
  return event?.code || event?.key || "";
}

let marks = 0;

/** performance.mark, for whoever measures; not without end in a long session. */
function mark(name) {
  marks += 1;
  if (marks % MOST_MARKS === 0) performance.clearMarks();
  performance.mark(name);
}

export class Session {
  state = null;
  item = null; // the one asked now
  #broken = false; // its image could not be loaded
  #ready = false;
  #sending = false;
  #undoWaits = false;
  #shownAt = Infinity;
  #refused = false; // the last look at the server
  #turn = 0;
  #struck = ""; // the key of the last act
  #stopwatch = new Stopwatch();

  /**
   * `screen` draws: see screen.js. `onOtherRun()` when another run is served by now: nothing is asked of it here.
   * `onRefused(sentence)` when the server lets this page see nothing any more, `onGranted()` when it does again.
   */
  constructor({ api, pictures, screen, people, onOtherRun, onRefused, onGranted }) {
    Object.assign(this, { api, pictures, screen, people, onOtherRun, onRefused, onGranted });
  }

  async start() {
    try {
      await this.#apply(await this.api.state());
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.people.refused(error.message); // nothing else can be wrong with a first look; another name loads the page again
      return;
    }
    this.#watch();
  }

  /** Why a key or click is not taken now, or "" where it is. `blind`: it needs no sight of the pixel. */
  objection(event, { rolled = false, blind = false } = {}) {
    if (blind && this.#broken && !this.#sending) return "";
    if (this.#broken) return "Ignored: the image is not on the screen.";
    const waited = event.timeStamp - this.#shownAt;
    if (!this.item) return "There is nothing to answer now.";
    if (this.api.lost) return "Ignored: the connection is lost.";
    if (!this.#ready || waited < 0) return "Ignored: the next pixel was not shown yet.";
    if (rolled && waited < ROLLED_MS) return "Ignored: two keys at once.";
    if (!blind && keyOf(event) && keyOf(event) === this.#struck && waited < STRUCK_MS) return "Ignored: the same key, too soon.";
    if (event.detail > 1 && waited < DOUBLE_CLICK_MS) return "Ignored: the second of a double click.";
    return "";
  }

  /** Whether an answer is on its way whose reply has not come. */
  get sending() {
    return this.#sending;
  }

  answer(name, event) {
    return this.#act("answer", { class: name, ...this.#pixel() }, `${name}.`, event);
  }

  unsure(event) {
    return this.#act("unsure", this.#pixel(), "Can’t tell.", event);
  }

  skip() {
    return this.#act("skip", {}, "Skipped: asked again later.");
  }

  pick({ y, x }, event) {
    return this.#act("pick", { y, x }, `Picked row ${y}, column ${x}.`, event);
  }

  undo() {
    if (this.#sending) this.#undoWaits = true;
    else if (this.state?.can_undo) this.#act("undo", {}, "Taken back: asked again.");
  }

  /** The pixel on the screen: the server refuses an answer to another one. */
  #pixel() {
    return { y: this.item.y, x: this.item.x };
  }

  async #act(kind, fields, told, event) {
    this.#struck = keyOf(event);
    const body = { ...fields };
    if (kind !== "undo") body.item = this.item.item;
    if (kind !== "undo" && kind !== "skip") body.seconds = this.#stopwatch.seconds();
    mark("key");
    this.#sending = true;
    this.#setReady(false);
    let next;
    try {
      next = await this.#send(kind, body, told);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.item = null; // the next look that the server grants shows what is asked then
      return undefined;
    } finally {
      this.#sending = false;
    }
    if (this.#leavesFor(next)) return undefined;
    if (this.#undoWaits) {
      this.#undoWaits = false;
      this.state = { ...this.state, ...next };
      if (next.can_undo && next.phase === "labelling") return this.#act("undo", {}, "Taken back: asked again.");
    }
    return this.#apply(next);
  }

  /** The new state; where the server refused, the state as it is now. */
  async #send(kind, body, told) {
    const slow = setTimeout(() => this.screen.saving(true), 250);
    try {
      const next = await this.api.send(kind, body, this.state.run_id);
      this.screen.told(told);
      return next;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#undoWaits = false;
      this.screen.refused(error.message);
      return this.api.state();
    } finally {
      clearTimeout(slow);
      this.screen.saving(false);
    }
  }

  /** `sudden`: the person did not bring this about. */
  async #apply(next, sudden = false) {
    if (this.#leavesFor(next)) return undefined;
    const old = this.state;
    const changed = old && (next.session !== old.session || next.round !== old.round || next.phase !== old.phase);
    const whole = changed && !next.classes ? await this.#look() : next;
    if (!whole) return undefined;
    this.state = { ...old, ...whole };
    document.body.dataset.phase = this.state.phase;
    this.people.heed(this.state);
    if (this.state.phase === "labelling" && this.state.queue.length > 0) return this.#show(this.state.queue[0], sudden);
    this.#turn += 1;
    this.item = null;
    this.#setReady(false);
    delete document.body.dataset.item;
    return this.screen.waiting(this.state);
  }

  /** Show an item again from the start, after its image could not be loaded. */
  showAgain() {
    if (this.item) this.#show(this.item, false);
  }

  async #show(item, sudden) {
    this.#turn += 1;
    const turn = this.#turn;
    const outdated = () => turn !== this.#turn;
    this.item = item;
    this.#broken = false;
    this.#setReady(false);
    this.pictures.want(this.screen.requests(this.state));
    const picture = await this.#picture(item, outdated);
    if (outdated() || !picture) return;
    this.screen.show(this.state, item, picture);
    await afterFrame();
    if (outdated()) return;
    mark("shown");
    this.#shownAt = performance.now();
    this.#stopwatch.restart();
    if (sudden) await pause(SETTLE_MS);
    if (outdated()) return;
    document.body.dataset.item = item.item;
    this.#setReady(true);
    this.screen.shown(this.state, item);
  }

  /** The image of an item, waiting for the connection if need be; null if the server has none. */
  async #picture(item, outdated) {
    const request = this.screen.imageRequest(this.state, item);
    const ready = this.pictures.get(request.url);
    if (ready) return ready;
    const slow = setTimeout(() => this.screen.loading(item), 150);
    try {
      while (!outdated()) {
        try {
          return await this.pictures.load(request);
        } catch (error) {
          if (error instanceof Refused || error instanceof DOMException) {
            if (outdated()) return null;
            this.#broken = true;
            this.screen.failed(this.state, item, error);
            return null;
          }
          await this.#look(); // waits until the server is there again
          await pause(200);
        }
      }
      return null;
    } finally {
      clearTimeout(slow);
    }
  }

  #setReady(ready) {
    this.#ready = ready;
    document.body.dataset.ready = String(ready);
  }

  /** Look at the server: every second while it works, now and then while the person thinks. */
  async #watch() {
    for (let second = 0; this.state.phase !== "finished"; second += 1) {
      await pause(1000);
      if (this.#sending || (this.item && second % CHECKS_EVERY !== 0)) continue;
      const turn = this.#turn;
      const next = await this.#look();
      if (next === null || this.#sending || turn !== this.#turn) continue; // the person was faster
      await this.#heed(next);
    }
  }

  /** The state; null where the server refuses it, which is said for as long as it does. */
  async #look() {
    try {
      const next = await this.api.state();
      if (this.#refused) this.onGranted();
      this.#refused = false;
      return next;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.#refused = true;
      this.#turn += 1;
      this.item = null;
      this.#setReady(false);
      this.onRefused(error.message);
      return null;
    }
  }

  /** Whether a state is another run's; then this page stops. */
  #leavesFor(next) {
    if (!this.state || next.run_id === this.state.run_id) return false;
    this.#turn += 1;
    this.item = null;
    this.#setReady(false);
    this.onOtherRun();
    return true;
  }

  async #heed(next) {
    if (this.#leavesFor(next)) return undefined;
    const open = this.item && next.phase === "labelling" && next.queue.some(({ item, y, x }) =>
      item === this.item.item && y === this.item.y && x === this.item.x);
    if (!open) return this.#apply(next, true);
    this.state = { ...this.state, ...next };
    return this.screen.update(this.state);
  }
}
