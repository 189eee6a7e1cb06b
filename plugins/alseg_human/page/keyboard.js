/** From key events to what the person means. Layout, Caps Lock and held keys are dealt with here. */

const NAMED = {
  Backspace: "undo", " ": "skip", "?": "unsure", Enter: "agree", Escape: "cancel",
  "+": "zoom-in", "=": "zoom-in", "-": "zoom-out", "_": "zoom-out", 0: "fit", "/": "find",
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down",
};
const SHIFTED = {
  g: "toggle-guess", p: "toggle-prediction", u: "toggle-utility", d: "toggle-points",
  m: "magnify", k: "open-keys", h: "open-help",
};
/** What a slider that has the focus takes. */
const SLIDES = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);
/** Only these may go on while a key is held down; a held class key answers once. */
const REPEATABLE = new Set(["zoom-in", "zoom-out", "left", "right", "up", "down"]);

/**
 * What a keydown means: {command, shift} or {label} (a letter a-z or a digit 1-9), or null.
 *
 * Shift is read from `shiftKey`, not from the case of the character, so Caps Lock changes
 * nothing. Digits are found by their place too where the layout has other characters there
 * (French, Czech), and letters where it has another alphabet (Greek, Cyrillic).
 */
export function meaningOf(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return null;
  const { key, code = "", shiftKey: shift } = event;
  if (key === "?") return { command: "unsure", shift };
  const digit = /^[0-9]$/.test(key) ? key : !shift && /^Digit([0-9])$/.exec(code)?.[1];
  if (digit) return digit === "0" ? { command: "fit", shift } : { label: digit };
  if (NAMED[key]) return { command: NAMED[key], shift };
  const typed = key.length === 1 ? key.toLowerCase() : "";
  const latin = typed >= "a" && typed <= "z";
  const placed = typed > "\u007f" || key === "Process" ? /^Key([A-Z])$/.exec(code)?.[1].toLowerCase() : undefined;
  const letter = latin ? typed : placed;
  if (!letter) return null;
  if (!shift) return { label: letter };
  return SHIFTED[letter] ? { command: SHIFTED[letter], shift } : null;
}

/** Whether the key belongs to what has the focus: a field, an open dialog, a button reached by Tab. */
function belongsElsewhere(event) {
  if (document.querySelector("dialog[open]")) return true;
  const focused = document.activeElement;
  if (focused?.matches("input[type=range]")) return SLIDES.has(event.key);
  if (focused?.matches("input, textarea, select")) return true;
  return (event.key === " " || event.key === "Enter") && Boolean(focused?.matches("button:focus-visible"));
}

export class Keyboard {
  #held = new Set(); // codes of the keys that are down

  /** `onMeaning(meaning, event, rolled)`; `rolled`: another key was still down, as when two are hit at once. */
  constructor(onMeaning) {
    this.onMeaning = onMeaning;
    addEventListener("keydown", (event) => this.#down(event));
    addEventListener("keyup", (event) => this.#up(event), true);
    addEventListener("blur", () => this.#held.clear());
  }

  #down(event) {
    const name = event.code || event.key;
    const held = event.repeat || this.#held.has(name);
    const rolled = [...this.#held].some((other) => other !== name && !other.startsWith("Shift"));
    this.#held.add(name);
    if (belongsElsewhere(event)) {
      if (held && event.key === "Enter" && document.activeElement?.matches("button")) event.preventDefault();
      return;
    }
    const meaning = meaningOf(event);
    if (!meaning || event.isComposing) return;
    event.preventDefault();
    if (held && !REPEATABLE.has(meaning.command)) return;
    this.onMeaning(meaning, event, rolled);
  }

  #up(event) {
    this.#held.delete(event.code || event.key);
    if (event.key === "Meta") this.#held.clear(); // macOS sends no keyup for keys let go under Meta
  }
}
