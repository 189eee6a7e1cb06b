/** Seconds since a question was shown, without the time in which the tab was hidden. */

export class Stopwatch {
  #collected = 0;
  #since = null;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#turn());
  }

  restart() {
    this.#collected = 0;
    this.#since = document.hidden ? null : performance.now();
  }

  /** Seconds, rounded to milliseconds; a day at most. */
  seconds() {
    const running = this.#since === null ? 0 : performance.now() - this.#since;
    return Math.min(86400, Math.round(this.#collected + running) / 1000);
  }

  #turn() {
    if (document.hidden && this.#since !== null) {
      this.#collected += performance.now() - this.#since;
      this.#since = null;
    } else if (!document.hidden && this.#since === null) {
      this.#since = performance.now();
    }
  }
}
