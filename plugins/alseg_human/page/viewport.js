/** Where image coordinates (x to the right, y down, pixel centres at +0.5) lie on the stage. */

const MARGIN = 16; // so that the mark of a pixel on the border of the image is seen whole
const LARGEST_PIXEL = 48; // CSS pixels an image pixel

export class Viewport {
  width = 1; // of the stage, in CSS pixels
  height = 1;
  imageWidth = 1;
  imageHeight = 1;
  zoom = 1; // 1: the whole image
  #x = 0.5; // the image point in the middle of the stage
  #y = 0.5;

  get fitScale() {
    const across = Math.max(1, this.width - 2 * MARGIN) / this.imageWidth;
    const down = Math.max(1, this.height - 2 * MARGIN) / this.imageHeight;
    return Math.min(across, down);
  }

  /** CSS pixels an image pixel. */
  get scale() {
    return this.fitScale * this.zoom;
  }

  resize(width, height) {
    this.width = Math.max(1, width);
    this.height = Math.max(1, height);
    this.#settle();
  }

  setImage(width, height) {
    this.imageWidth = width;
    this.imageHeight = height;
    this.#settle();
  }

  centre(x, y) {
    this.#x = x;
    this.#y = y;
    this.#settle();
  }

  fit() {
    this.zoom = 1;
    this.#settle();
  }

  panBy(dx, dy) {
    this.centre(this.#x - dx / this.scale, this.#y - dy / this.scale);
  }

  /** Zoom, keeping the image point under the stage point (left, top) where it is. */
  zoomBy(factor, left = this.width / 2, top = this.height / 2) {
    const [x, y] = this.toImage(left, top);
    const most = Math.max(1, LARGEST_PIXEL / this.fitScale);
    this.zoom = Math.min(most, Math.max(1, this.zoom * factor));
    if (this.zoom < 1.02) this.zoom = 1;
    this.centre(x - (left - this.width / 2) / this.scale, y - (top - this.height / 2) / this.scale);
  }

  toStage(x, y) {
    return [
      this.width / 2 + (x - this.#x) * this.scale,
      this.height / 2 + (y - this.#y) * this.scale,
    ];
  }

  toImage(left, top) {
    return [
      this.#x + (left - this.width / 2) / this.scale,
      this.#y + (top - this.height / 2) / this.scale,
    ];
  }

  /** The pixel {y, x} under a stage point, or null outside the image. */
  pixelAt(left, top) {
    const [x, y] = this.toImage(left, top).map(Math.floor);
    const inside = x >= 0 && y >= 0 && x < this.imageWidth && y < this.imageHeight;
    return inside ? { y, x } : null;
  }

  /** The part of the image on the stage: [left, top, right, bottom] in whole image pixels. */
  visible() {
    const [left, top] = this.toImage(0, 0);
    const [right, bottom] = this.toImage(this.width, this.height);
    return [
      Math.max(0, Math.floor(left)),
      Math.max(0, Math.floor(top)),
      Math.min(this.imageWidth, Math.ceil(right)),
      Math.min(this.imageHeight, Math.ceil(bottom)),
    ];
  }

  /** The whole image stays in the middle; zoomed in, any of its points may be there. */
  #settle() {
    if (this.zoom === 1) {
      this.#x = this.imageWidth / 2;
      this.#y = this.imageHeight / 2;
    } else {
      this.#x = Math.min(this.imageWidth, Math.max(0, this.#x));
      this.#y = Math.min(this.imageHeight, Math.max(0, this.#y));
    }
  }
}
