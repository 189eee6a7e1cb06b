/**
 * Which letters answer which class.
 *
 * Up to 35 classes one letter each (past 26, the first nine make do with their digit where the
 * letters run out); beyond that two letters each. Digits 1 to 9 answer the first nine always and
 * are not part of these keys.
 */

import { forget, recall, remember } from "./settings.js";

const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
const DIGITS = 9;
const MOST_SINGLE = LETTERS.length + DIGITS;

/** The number of letters a class needs: 1 or 2. */
export function keyLength(classCount) {
  return classCount > MOST_SINGLE ? 2 : 1;
}

/** The letters a-z of a name in order, accents taken off. */
function lettersOf(name) {
  const plain = name.normalize("NFKD").toLowerCase();
  return [...plain].filter((letter) => letter >= "a" && letter <= "z" && letter.length === 1);
}

/** Keys that fit a name, best first; pairs begin with the first letter of the name. */
function wishes(name, length) {
  const letters = lettersOf(name);
  if (length === 1) return letters;
  const [first, ...rest] = letters;
  return first ? [...rest, ...LETTERS].map((second) => first + second) : [];
}

function allKeys(length) {
  if (length === 1) return LETTERS;
  return LETTERS.flatMap((first) => LETTERS.map((second) => first + second));
}

/** The suggested key of each class, in the order of `names`; "" where only a digit is left. */
export function suggestKeys(names) {
  const length = keyLength(names.length);
  const keys = names.map(() => "");
  const free = new Set(allKeys(length));
  const order = names.map((_, index) => index);
  if (length === 1 && names.length > LETTERS.length) order.push(...order.splice(0, DIGITS));
  const give = (index, key) => {
    if (key === undefined) return;
    keys[index] = key;
    free.delete(key);
  };
  for (const index of order) give(index, wishes(names[index], length).find((key) => free.has(key)));
  for (const index of order) if (!keys[index]) give(index, free.values().next().value);
  return keys;
}

/** The class (an index) whose digit or whole key was pressed, or -1. */
export function classOf(keys, pressed) {
  if (/^[1-9]$/.test(pressed)) return Number(pressed) <= keys.length ? Number(pressed) - 1 : -1;
  return keys.indexOf(pressed);
}

/**
 * Give class `index` the key; who had it gets the old one.
 * Returns {keys, other} (other: the class swapped with, or -1), or null where that class would
 * be left without any key.
 */
export function changeKey(keys, index, key) {
  const other = keys.indexOf(key);
  if (other === index) return { keys, other: -1 };
  if (other >= DIGITS && !keys[index]) return null;
  const changed = [...keys];
  changed[index] = key;
  if (other >= 0) changed[other] = keys[index];
  return { keys: changed, other };
}

function storeName(names) {
  return `keys:${JSON.stringify([...names].sort())}`;
}

/** The person's keys for these classes if stored and still sound, else the suggested ones. */
export function loadKeys(names) {
  const suggested = suggestKeys(names);
  const stored = recall(storeName(names), null);
  if (stored === null || typeof stored !== "object") return suggested;
  const keys = names.map((name) => stored[name]);
  const length = keyLength(names.length);
  const sound = (key, index) => key === "" ? index < DIGITS
    : typeof key === "string" && key.length === length && /^[a-z]+$/.test(key);
  const used = keys.filter((key) => key !== "");
  return keys.every(sound) && new Set(used).size === used.length ? keys : suggested;
}

export function saveKeys(names, keys) {
  remember(storeName(names), Object.fromEntries(names.map((name, index) => [name, keys[index]])));
}

export function resetKeys(names) {
  forget(storeName(names));
  return suggestKeys(names);
}
