/** The dialog in which the person gives classes other keys. */

import { chip } from "./classlist.js";
import { changeKey, keyLength, resetKeys, saveKeys } from "./keys.js";

const byId = (id) => document.getElementById(id);

export class KeysDialog {
  #classes = [];
  #keys = [];
  #chosen = -1; // the class that waits for its new key
  #typed = "";

  /** `onChange(keys)` at once with every change. */
  constructor(onChange) {
    this.onChange = onChange;
    this.dialog = byId("keys");
    this.list = byId("keys-list");
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    byId("reset-keys").addEventListener("click", () => this.#reset());
  }

  open(classes, keys) {
    this.#classes = classes;
    this.#keys = keys;
    this.#choose(-1);
    this.#note("");
    this.#build();
    this.dialog.showModal();
  }

  get #names() {
    return this.#classes.map(({ name }) => name);
  }

  #build(changed = []) {
    const rows = this.#classes.map(({ name, colour }, index) => {
      const row = document.createElement("button");
      row.type = "button";
      row.className = "class";
      row.classList.toggle("changed", changed.includes(index));
      const label = document.createElement("span");
      label.className = "name";
      label.textContent = name;
      row.append(chip(colour, this.#keys[index] || "–"), label);
      row.addEventListener("click", () => this.#choose(index));
      return row;
    });
    this.list.replaceChildren(...rows);
  }

  #choose(index) {
    this.#chosen = index;
    this.#typed = "";
    [...this.list.children].forEach((row, at) => row.classList.toggle("chosen", at === index));
    if (index < 0) return;
    const letters = keyLength(this.#classes.length) === 2 ? "two letters" : "a letter";
    this.#note(`Press ${letters} for ${this.#names[index]} (Esc: leave it as it is).`);
  }

  #key(event) {
    if (this.#chosen < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === "Escape") {
      event.preventDefault();
      this.#choose(-1);
      this.#note("");
      return;
    }
    const letter = event.key.toLowerCase();
    if (!/^[a-z]$/.test(letter)) {
      if (event.key.length === 1 && event.key !== " ") this.#note("Only the letters a to z can be keys of classes.");
      return;
    }
    event.preventDefault();
    if (event.repeat) return;
    this.#typed += letter;
    if (this.#typed.length === keyLength(this.#classes.length)) this.#give(this.#typed);
    else this.#note(`${this.#typed} + second letter`);
  }

  #give(key) {
    const index = this.#chosen;
    const names = this.#names;
    const change = changeKey(this.#keys, index, key);
    if (change === null) {
      const owner = names[this.#keys.indexOf(key)];
      this.#typed = "";
      this.#note(`${key} is the only key of ${owner}. Press another one.`);
      return;
    }
    this.#keys = change.keys;
    saveKeys(names, this.#keys);
    this.onChange(this.#keys);
    this.#build([index, change.other]);
    this.list.children[index].focus();
    this.#choose(-1);
    const taken = change.other < 0 ? "" : ` ${names[change.other]}, which had it, is now ${this.#keys[change.other] || "on its digit only"}.`;
    this.#note(`${names[index]} is now ${key}.${taken}`);
  }

  #reset() {
    this.#keys = resetKeys(this.#names);
    this.onChange(this.#keys);
    this.#choose(-1);
    this.#build();
    this.#note("The suggested keys are back.");
  }

  #note(text) {
    byId("keys-note").textContent = text;
  }
}
