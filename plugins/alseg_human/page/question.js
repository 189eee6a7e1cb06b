/** The words of the question, the model's guess, and how far the round is. */

import { paintChip } from "./classlist.js";
import { duration, percent } from "./says.js";

const byId = (id) => document.getElementById(id);

function write(id, text) {
  const target = byId(id);
  if (target.textContent !== text) target.textContent = text;
  target.hidden = text === "";
}

/** "3 of 10" for a pixel to be picked, as far as the server or the points so far tell; else "". */
export function pickNumber(state, item, points) {
  if (item.number) return item.of ? `${item.number} of ${item.of}` : `number ${item.number}`;
  if (!points) return "";
  const picked = points.filter(({ round }) => round === state.round).length;
  const open = state.queue.filter(({ image }) => image === item.image).length;
  const wholeImageQueued = state.queue.length < 12 || state.queue.at(-1).image !== item.image;
  return wholeImageQueued ? `${picked + 1} of ${picked + open}` : `number ${picked + 1}`;
}

/** What the model thought, without its guess where that is hidden. */
function thoughts(item, guessShown) {
  const parts = [];
  if (guessShown && item.rival) parts.push(`second thought: ${item.rival}`);
  if (item.utility !== null) parts.push(`utility ${Number(item.utility).toPrecision(2)}`);
  if (item.rank !== null) parts.push(`chosen as number ${item.rank + 1}`);
  if (item.skips > 0) parts.push(item.skips === 1 ? "skipped once" : `skipped ${item.skips} times`);
  return parts.join(" · ");
}

/** Show the question about `item`; `guess` is the guess to show ({name, colour, key}) or null. */
export function writeQuestion(state, item, { guess, points }) {
  const picking = item.y === null;
  const place = picking ? pickNumber(state, item, points) : `row ${item.y}, column ${item.x}`;
  const where = picking && place ? `${place} in this image` : place;
  write("ask", picking ? "Click a pixel that would help most" : "Which class is this pixel?");
  byId("place").replaceChildren(nameOf(item.name), ...(where ? [` · ${where}`] : []));
  write("why", picking ? "" : thoughts(item, guess !== null));
  byId("why").title = byId("why").textContent;
  const agree = byId("agree");
  agree.hidden = guess === null;
  if (guess === null) return;
  const sure = item.probability === null ? "" : ` (${percent(item.probability)})`;
  byId("agree-text").textContent = `Model: ${guess.name}${sure}`;
  paintChip(byId("agree-chip"), guess.colour, guess.key);
  agree.setAttribute("aria-label", `Agree with the model: ${guess.name}${sure}`);
}

function nameOf(name) {
  const made = document.createElement("span");
  made.className = "file";
  made.textContent = name;
  made.title = name;
  return made;
}

/** The same in one sentence, for ears. */
export function spokenQuestion(state, item, { guess, points }) {
  if (item.y === null) {
    const number = pickNumber(state, item, points);
    return `Pick a pixel${number && `, ${number}`}: ${item.name}. Arrow keys move, Enter picks.`;
  }
  const hint = guess ? `, guess ${guess.name}` : "";
  return `${item.name}, row ${item.y}, column ${item.x}${hint}.`;
}

/** The bar and the numbers at the top. */
export function writeProgress(state) {
  const { done, total, skipped, unsure, agreed, guessed, seconds } = state.progress;
  byId("run").textContent = state.run;
  write("round", `Round ${state.round} (${state.round + 1} of ${state.rounds})`);
  const bar = byId("bar");
  bar.max = Math.max(1, total);
  bar.value = done;
  write("count", `${done} of ${total}`);
  write("pace", seconds === null ? "" : `${seconds.toFixed(1)} s a label`);
  write("left", seconds === null || done >= total ? "" : `${duration((total - done) * seconds)} left`);
  write("agreement", guessed > 0 ? `model right ${agreed}/${guessed} (${percent(agreed / guessed)})` : "");
  byId("agreement").title = `You gave the model's guess in ${agreed} of ${guessed} answers.`;
  const open = [];
  if (skipped > 0) open.push(`${skipped} skipped`);
  if (unsure > 0) open.push(`${unsure} can’t tell`);
  write("open-ends", open.join(", "));
  document.title = state.phase === "labelling" ? `${done}/${total} · ${state.run}` : document.title;
}
