/** The curve of mIoU over labelled pixels, as SVG. */

import { percent } from "./says.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 560;
const HEIGHT = 240;
const PAD = { left: 52, right: 24, top: 28, bottom: 40 };

function shape(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

/** A round step that cuts `span` in about four. */
function stepOf(span) {
  const rough = span / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
}

/** Draw into a figure; hidden while no round has a mIoU. */
export function drawCurve(figure, history) {
  const rounds = history.filter(({ miou }) => miou !== null);
  figure.hidden = rounds.length === 0;
  const drawn = JSON.stringify(rounds);
  if (figure.hidden || figure.dataset.drawn === drawn) return;
  figure.dataset.drawn = drawn;
  figure.querySelector("svg")?.remove();
  figure.append(curveOf(rounds));
}

function curveOf(rounds) {
  const mious = rounds.map(({ miou }) => miou);
  const step = Math.max(0.01, stepOf(Math.max(0.04, Math.max(...mious) - Math.min(...mious))));
  const low = Math.max(0, Math.floor(Math.min(...mious) / step) * step);
  const high = Math.max(low + step, Math.ceil(Math.max(...mious) / step - 1e-9) * step);
  const most = Math.max(1, ...rounds.map(({ labelled_pixels: pixels }) => pixels));
  const across = (pixels) => PAD.left + (pixels / most) * (WIDTH - PAD.left - PAD.right);
  const down = (miou) => HEIGHT - PAD.bottom - ((miou - low) / (high - low)) * (HEIGHT - PAD.top - PAD.bottom);

  const spoken = rounds.map(({ round, miou }) => `round ${round + 1}: ${percent(miou)}`).join(", ");
  const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `mIoU ${spoken}` });
  for (let at = low; at <= high + 1e-9; at += step) {
    svg.append(shape("line", { x1: PAD.left, x2: WIDTH - PAD.right, y1: down(at), y2: down(at), class: "grid" }));
    svg.append(shape("text", { x: PAD.left - 8, y: down(at) + 4, "text-anchor": "end" }, percent(at)));
  }
  const points = rounds.map(({ labelled_pixels: pixels, miou }) => [across(pixels), down(miou)]);
  svg.append(shape("polyline", { points: points.map((point) => point.join(",")).join(" "), class: "line" }));
  rounds.forEach(({ labelled_pixels: pixels, miou }, index) => {
    const [x, y] = points[index];
    svg.append(shape("circle", { cx: x, cy: y, r: 4, class: "dot" }));
    const last = index === rounds.length - 1;
    if (last) svg.append(shape("text", { x, y: y - 10, "text-anchor": "end", class: "value" }, percent(miou)));
    if (last || index === 0) {
      svg.append(shape("text", { x, y: HEIGHT - PAD.bottom + 18, "text-anchor": "middle" }, String(pixels)));
    }
  });
  const middle = (PAD.left + WIDTH - PAD.right) / 2;
  svg.append(shape("text", { x: middle, y: HEIGHT - 6, "text-anchor": "middle" }, "labelled pixels"));
  return svg;
}
