/** The list of classes: a button each with colour, key and name; a filter where there are many. */

import { inkOn } from "./marks.js";

const FILTER_FROM = 21;
const FLASH_MS = 180;

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A class's colour with its key on it, as its points on the image have it. */
export function chip(colour, key) {
  const made = element("span", "chip", key);
  paintChip(made, colour, key);
  return made;
}

export function paintChip(target, colour, key) {
  target.textContent = key;
  target.style.background = colour;
  target.style.color = inkOn(colour);
}

export class ClassList {
  #buttons = [];
  #names = [];
  #keys = [];

  /** `onAnswer(index, event)` when a class is clicked, tapped, or found by the filter and Enter. */
  constructor(root, onAnswer) {
    this.root = root;
    this.onAnswer = onAnswer;
    this.list = root.querySelector("#class-list");
    this.filter = root.querySelector("#filter");
    this.hint = root.querySelector("#filter-hint");
    this.chord = root.querySelector("#chord");
    this.filter.addEventListener("input", () => this.#applyFilter());
    this.filter.addEventListener("keydown", (event) => this.#filterKey(event));
  }

  build(classes, keys) {
    this.#names = classes.map(({ name }) => name);
    this.#keys = keys;
    this.#buttons = classes.map((entry, index) => this.#button(entry, index));
    this.list.replaceChildren(...this.#buttons);
    this.root.classList.toggle("many", classes.length >= FILTER_FROM);
    this.root.querySelector("#filter-row").hidden = classes.length < FILTER_FROM;
  }

  #button({ name, colour }, index) {
    const button = element("button", "class");
    button.type = "button";
    button.dataset.class = name;
    button.title = name;
    const digit = index < 9 ? String(index + 1) : "";
    const letters = this.#keys[index];
    button.append(chip(colour, letters || digit), element("span", "name", name));
    if (letters && digit) button.append(element("kbd", "digit", digit));
    button.setAttribute("aria-label", `${name}, key ${[letters, digit].filter(Boolean).join(" or ")}`);
    button.addEventListener("click", (event) => this.onAnswer(index, event));
    return button;
  }

  /** Mark the model's guess (an index, or -1) in the list. */
  setGuess(guess) {
    this.#buttons.forEach((button, index) => button.classList.toggle("guess", index === guess));
  }

  /** The first of two letters, or "". */
  prefix = "";

  /** The first of two letters was pressed: light up what it may become; "" ends that. */
  setPrefix(prefix) {
    this.prefix = prefix;
    this.list.classList.toggle("choosing", prefix !== "");
    this.chord.hidden = prefix === "";
    this.chord.textContent = prefix === "" ? "" : `${prefix} + second letter (Esc cancels)`;
    let first = null;
    this.#buttons.forEach((button, index) => {
      const candidate = prefix !== "" && this.#keys[index].startsWith(prefix);
      button.classList.toggle("candidate", candidate);
      if (candidate) first ??= button;
    });
    first?.scrollIntoView({ block: "nearest" });
  }

  /** Usable, or only a legend (while a pixel is to be picked). */
  setUsable(usable) {
    this.list.classList.toggle("legend", !usable);
    this.#buttons.forEach((button) => button.setAttribute("aria-disabled", String(!usable)));
  }

  flash(index) {
    const button = this.#buttons[index];
    button?.classList.add("answered");
    setTimeout(() => button?.classList.remove("answered"), FLASH_MS);
  }

  #wanted() {
    return this.filter.value.trim().toLowerCase();
  }

  #matches() {
    return this.#names.map((name) => name.toLowerCase().includes(this.#wanted()));
  }

  /** The class that Enter in the filter answers: the only one left, or that of this very name; else -1. */
  #found() {
    const matches = this.#matches();
    if (this.#wanted() === "") return -1;
    if (matches.filter(Boolean).length === 1) return matches.indexOf(true);
    return this.#names.findIndex((name) => name.toLowerCase() === this.#wanted());
  }

  #applyFilter() {
    const matches = this.#matches();
    this.#buttons.forEach((button, index) => { button.hidden = !matches[index]; });
    const found = this.#found();
    const left = matches.filter(Boolean).length;
    if (found >= 0) this.hint.textContent = `Enter: ${this.#names[found]}`;
    else this.hint.textContent = this.#wanted() === "" ? "" : `${left} found`;
  }

  /** Show all classes. */
  clearFilter() {
    this.filter.value = "";
    this.#applyFilter();
    this.filter.blur();
  }

  #filterKey(event) {
    if (event.key === "Escape") this.clearFilter();
    if (event.key !== "Enter" || event.repeat) return;
    const found = this.#found();
    if (found < 0) return;
    event.stopPropagation(); // else the same Enter would agree with the guess
    this.clearFilter();
    this.onAnswer(found, event);
  }
}
