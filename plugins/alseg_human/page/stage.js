/** The big image with what lies over it. `scene` says what; `draw` puts it on the screen. */

import { clearRadius, crowds, drawCursor, drawMark, drawPoint } from "./marks.js";
import { Viewport } from "./viewport.js";

const SMOOTH_BELOW = 4; // CSS pixels an image pixel, from where on pixels are drawn as squares

/** Fit a canvas to its box in device pixels; returns its context in CSS pixels. */
export function fitCanvas(canvas, width, height, options) {
  const ratio = devicePixelRatio || 1;
  const across = Math.max(1, Math.round(width * ratio));
  const down = Math.max(1, Math.round(height * ratio));
  if (canvas.width !== across) canvas.width = across;
  if (canvas.height !== down) canvas.height = down;
  const context = canvas.getContext("2d", options);
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

export class Stage {
  view = new Viewport();
  /** item, picture, overlay (Picture or null), opacity, points [{y, x, colour, letter}], cursor {y, x} or null */
  scene = { item: null, picture: null, overlay: null, opacity: 0.5, points: [], cursor: null };
  #planned = false;

  constructor(root, onDraw = () => {}) {
    this.root = root;
    this.onDraw = onDraw;
    this.canvas = root.querySelector("#picture");
    this.marks = root.querySelector("#marks");
    this.beacon = root.querySelector("#beacon");
    new ResizeObserver(() => this.#resized()).observe(root);
  }

  /** Put an item on the stage: its pixel in the middle when zoomed in. Draws at once. */
  show(item, picture) {
    if (this.view.width <= 1) this.#measure(); // it was hidden until now
    this.scene.item = item;
    this.scene.picture = picture;
    this.view.setImage(item.width, item.height);
    if (item.y !== null) this.view.centre(item.x + 0.5, item.y + 0.5);
    this.draw();
    if (item.y !== null) this.#pulse(item);
  }

  /** Draw before the next frame, once, however often this is called. */
  plan() {
    if (this.#planned) return;
    this.#planned = true;
    requestAnimationFrame(() => this.#planned && this.draw());
  }

  draw() {
    this.#planned = false;
    const { picture, overlay, opacity } = this.scene;
    const context = fitCanvas(this.canvas, this.view.width, this.view.height);
    context.clearRect(0, 0, this.view.width, this.view.height);
    if (picture) this.#paint(context, picture, this.view.scale < SMOOTH_BELOW);
    if (picture && overlay) {
      context.globalAlpha = opacity;
      this.#paint(context, overlay, this.view.scale < 1);
      context.globalAlpha = 1;
    }
    this.#drawMarks();
    this.onDraw();
  }

  #paint(context, picture, smooth) {
    const { imageWidth, imageHeight, scale } = this.view;
    const [left, top, right, bottom] = this.view.visible();
    if (right <= left || bottom <= top || picture.closed) return;
    const level = picture.levelFor((scale * devicePixelRatio * imageWidth) / picture.width);
    const across = level.width / imageWidth;
    const down = level.height / imageHeight;
    const [stageLeft, stageTop] = this.view.toStage(left, top);
    context.imageSmoothingEnabled = smooth;
    context.drawImage(level,
      left * across, top * down, (right - left) * across, (bottom - top) * down,
      stageLeft, stageTop, (right - left) * scale, (bottom - top) * scale);
  }

  #drawMarks() {
    const context = fitCanvas(this.marks, this.view.width, this.view.height);
    context.clearRect(0, 0, this.view.width, this.view.height);
    const { item, picture, points, cursor } = this.scene;
    if (!item || !picture) return;
    const centre = ({ y, x }) => this.view.toStage(x + 0.5, y + 0.5);
    const target = item.y !== null ? item : cursor;
    for (const point of points) {
      const at = centre(point);
      if (!target || !crowds(...at, ...centre(target), this.view.scale)) drawPoint(context, ...at, point, this.view.width);
    }
    if (item.y !== null) drawMark(context, ...centre(item), this.view.scale);
    else if (cursor) drawCursor(context, ...centre(cursor), this.view.scale);
  }

  /** A ring that closes in on the pixel leads the eye there; it never covers it. */
  #pulse({ y, x }) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
    const [left, top] = this.view.toStage(x + 0.5, y + 0.5);
    const radius = clearRadius(this.view.scale);
    Object.assign(this.beacon.style, {
      left: `${left - radius}px`, top: `${top - radius}px`, width: `${2 * radius}px`, height: `${2 * radius}px`,
    });
    this.beacon.animate(
      [{ transform: "scale(5)", opacity: 0.9 }, { transform: "scale(1.2)", opacity: 0 }],
      { duration: 260, easing: "ease-out" },
    );
  }

  #measure() {
    this.view.resize(this.root.clientWidth, this.root.clientHeight);
  }

  #resized() {
    this.#measure();
    this.draw();
  }
}
