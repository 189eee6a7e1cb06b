/** Mouse, pen and fingers on the stage: hover, click, drag, wheel, pinch. */

const SLACK = { mouse: 5, pen: 8, touch: 12 }; // CSS pixels a click may wander without being a drag

/**
 * Calls, in CSS pixels of the stage: onHover(left, top) with a mouse or pen, onClick(left, top, event),
 * onPan(dx, dy), onZoom(factor, left, top). A drag or a pinch never ends as a click.
 */
export class Gestures {
  #fingers = new Map(); // pointerId -> {left, top}, those that are down
  #start = null; // of the one finger that may still be a click
  #moved = false;

  constructor(root, handlers) {
    this.root = root;
    this.handlers = handlers;
    root.addEventListener("pointerdown", (event) => this.#down(event));
    root.addEventListener("pointermove", (event) => this.#move(event));
    root.addEventListener("pointerup", (event) => this.#up(event, true));
    root.addEventListener("pointercancel", (event) => this.#up(event, false));
    root.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
  }

  #place(event) {
    const box = this.root.getBoundingClientRect();
    return { left: event.clientX - box.left, top: event.clientY - box.top };
  }

  #down(event) {
    if (event.button !== 0 || event.target.closest("button, input")) return;
    const place = this.#place(event);
    this.#fingers.set(event.pointerId, place);
    this.root.setPointerCapture(event.pointerId);
    this.#moved = this.#fingers.size > 1;
    this.#start = place;
  }

  #move(event) {
    const place = this.#place(event);
    const last = this.#fingers.get(event.pointerId);
    if (!last) {
      if (event.pointerType !== "touch") this.handlers.onHover(place.left, place.top);
      return;
    }
    if (this.#fingers.size === 1) this.#drag(event, last, place);
    else if (this.#fingers.size === 2) this.#pinch(event.pointerId, last, place);
  }

  #drag(event, last, place) {
    const way = Math.hypot(place.left - this.#start.left, place.top - this.#start.top);
    if (!this.#moved && way <= (SLACK[event.pointerType] ?? SLACK.mouse)) return;
    this.#moved = true;
    this.root.classList.add("dragged");
    this.#fingers.set(event.pointerId, place);
    this.handlers.onPan(place.left - last.left, place.top - last.top);
  }

  #pinch(pointerId, last, place) {
    this.#moved = true;
    const other = [...this.#fingers].find(([id]) => id !== pointerId)[1];
    const before = Math.hypot(last.left - other.left, last.top - other.top);
    const now = Math.hypot(place.left - other.left, place.top - other.top);
    this.#fingers.set(pointerId, place);
    this.handlers.onPan((place.left - last.left) / 2, (place.top - last.top) / 2);
    if (before > 1 && now > 1) {
      this.handlers.onZoom(now / before, (place.left + other.left) / 2, (place.top + other.top) / 2);
    }
  }

  #up(event, done) {
    if (!this.#fingers.delete(event.pointerId)) return;
    this.root.classList.remove("dragged");
    if (this.#fingers.size > 0) return;
    if (done && !this.#moved) this.handlers.onClick(this.#start.left, this.#start.top, event);
    this.#start = null;
  }

  #wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    const speed = event.ctrlKey ? 0.01 : 0.002; // ctrlKey: a pinch on a trackpad
    const { left, top } = this.#place(event);
    this.handlers.onZoom(Math.exp(-event.deltaY * lines * speed), left, top);
  }
}
