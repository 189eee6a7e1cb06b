/** What is drawn over the image: the asked pixel's mark, the picking cursor, the points so far. */

const LIGHT = "#ffffff";
const DARK = "#000000";
const ARM = 16;
const TAG_HEIGHT = 17;
const LARGE = 24; // CSS pixels an image pixel, from where on the mark is a frame round that pixel alone

/**
 * CSS pixels from the centre of a pixel to the mark round it: the 3 x 3 pixels there stay in
 * sight whole (their corner is 1.5 * sqrt(2) pixels away) unless a pixel is large.
 */
export function clearRadius(scale) {
  return scale < LARGE ? Math.max(10, 2.13 * scale + 4) : scale / 2 + 3;
}

/** Stroke a path in dark, then thinner in light: seen on any colour. */
function strokeTwice(context, path, thin = 2, thick = 5) {
  context.lineCap = "round";
  context.strokeStyle = DARK;
  context.lineWidth = thick;
  context.stroke(path);
  context.strokeStyle = LIGHT;
  context.lineWidth = thin;
  context.stroke(path);
}

function arms(left, top, inner, outer) {
  const path = new Path2D();
  for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
    path.moveTo(left + dx * inner, top + dy * inner);
    path.lineTo(left + dx * outer, top + dy * outer);
  }
  return path;
}

/** The asked pixel: a hollow ring, or frame, with four arms outwards, centred at stage point (left, top). */
export function drawMark(context, left, top, scale) {
  const radius = clearRadius(scale);
  const path = arms(left, top, radius, radius + ARM);
  path.moveTo(left + radius, top);
  if (scale < LARGE) path.arc(left, top, radius, 0, 2 * Math.PI);
  else path.rect(left - radius, top - radius, 2 * radius, 2 * radius);
  strokeTwice(context, path);
}

/** The cursor of a person who picks: arms only, as the ring means "asked". */
export function drawCursor(context, left, top, scale) {
  const radius = clearRadius(scale) - 4;
  strokeTwice(context, arms(left, top, radius, radius + ARM), 1.5, 4);
}

/** Black or white, whichever reads better on "#rrggbb" (WCAG relative luminance). */
export function inkOn(colour) {
  const linear = [1, 3, 5].map((at) => {
    const value = parseInt(colour.slice(at, at + 2), 16) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  const luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  return luminance > 0.179 ? DARK : LIGHT;
}

/**
 * A labelled point: a small ring at the pixel and a tag with the key of its class beside it, up
 * and to the right unless the stage, `width` wide, ends there.
 */
export function drawPoint(context, left, top, { colour, letter }, width) {
  const ring = new Path2D();
  ring.arc(left, top, 4, 0, 2 * Math.PI);
  context.strokeStyle = inkOn(colour);
  context.lineWidth = 4;
  context.stroke(ring);
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.stroke(ring);
  context.font = "600 12px system-ui, sans-serif";
  const across = Math.max(TAG_HEIGHT, context.measureText(letter).width + 8);
  const tagLeft = left + 6 + across > width ? left - 5 - across : left + 5;
  const tagTop = top - 6 - TAG_HEIGHT < 0 ? top + 5 : top - 5 - TAG_HEIGHT;
  const tag = new Path2D();
  tag.roundRect(tagLeft, tagTop, across, TAG_HEIGHT, 4);
  context.fillStyle = colour;
  context.fill(tag);
  context.strokeStyle = inkOn(colour);
  context.lineWidth = 1;
  context.stroke(tag);
  context.fillStyle = inkOn(colour);
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(letter, tagLeft + across / 2, tagTop + TAG_HEIGHT / 2 + 0.5);
}

/** Whether a point's ring or tag might touch what is round the asked pixel. */
export function crowds(left, top, markLeft, markTop, scale) {
  const box = 6 + TAG_HEIGHT; // how far the tag reaches, to whichever side
  const aside = Math.max(0, Math.abs(left - markLeft) - box);
  const above = Math.max(0, Math.abs(top - markTop) - box);
  return Math.hypot(aside, above) < clearRadius(scale);
}
