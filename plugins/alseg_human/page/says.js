/** What the page says besides the question: for ears, on the stage, and in the banner. */

const TOAST_MS = 1600;
const IGNORED_MS = 1000; // for which what was ignored stays beside the next answer

const byId = (id) => document.getElementById(id);

/** For screen readers: what was answered, and the next question. */
export function announce(text) {
  byId("live").textContent = text;
}

let fading = 0;
const ignored = { text: "", until: 0 };

/** A short word on the stage, which is returned; `kind` is "done" or "ignored", and the latter stays for a while. */
export function toast(text, kind = "done") {
  const box = byId("toast");
  const now = performance.now();
  if (kind === "ignored") Object.assign(ignored, { text, until: now + IGNORED_MS });
  const both = kind === "done" && now < ignored.until;
  box.textContent = both ? `${text} ${ignored.text}` : text;
  box.dataset.kind = both ? "ignored" : kind;
  box.classList.add("seen");
  clearTimeout(fading);
  fading = setTimeout(() => box.classList.remove("seen"), TOAST_MS);
  return box.textContent;
}

/** Something was pressed that does nothing now: say so to eyes and ears. */
export function sayIgnored(text) {
  toast(text, "ignored");
  announce(text);
}

export function showBanner(text) {
  const banner = byId("banner");
  banner.classList.remove("good");
  if (banner.textContent !== text) banner.textContent = text;
  banner.hidden = false;
}

/** The trouble is over: say so for a moment, then make room. */
export function endBanner(text) {
  const banner = byId("banner");
  banner.textContent = text;
  banner.classList.add("good");
  setTimeout(() => {
    if (banner.classList.contains("good")) banner.hidden = true;
  }, 2500);
}

/** A remark over the image that stays until it is taken away with "". */
export function stageNote(text) {
  const note = byId("stage-note");
  note.textContent = text;
  note.hidden = text === "";
}

/** Seconds in words: "about 40 s", "5 min", "1 h 20 min". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function percent(fraction) {
  return `${Math.round(100 * fraction)} %`;
}
