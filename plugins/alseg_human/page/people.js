/** Who is at the page: a name that this browser remembers, or ?who=NAME of the address. */

import { showBanner } from "./says.js";
import { recall, remember } from "./settings.js";

const MOST = 60; // letters

const byId = (id) => document.getElementById(id);

const given = new URLSearchParams(location.search).get("who");
if (given) remember("who", given.trim().slice(0, MOST));

/** Of this page for as long as it is open, whatever name another tab gives meanwhile. */
const who = recall("who", "");

/** The name, or "" where none was given: then the server knows who runs it. */
export function personName() {
  return who;
}

export class People {
  /** `onChange` once another name was given. */
  constructor(onChange) {
    byId("open-name").addEventListener("click", () => this.ask());
    byId("name-form").addEventListener("submit", () => {
      const name = byId("name-input").value.trim().slice(0, MOST);
      if (!name || name === personName()) return;
      remember("who", name);
      const plain = new URL(location);
      plain.searchParams.delete("who"); // else the address would give its name again
      history.replaceState(null, "", plain);
      onChange();
    });
  }

  ask() {
    byId("name-input").value = personName();
    byId("name").showModal();
  }

  /** The server takes no such name, or nothing of this page: say why, and ask for another. */
  refused(sentence) {
    showBanner(sentence);
    if (!byId("name").open) this.ask();
  }

  /** Show who answers, where people are told apart or a name is remembered; ask those who have not said it. */
  heed(state) {
    const apart = Boolean(state.asks_name);
    byId("open-name").hidden = !apart && !personName();
    byId("open-name").textContent = state.who ? `You: ${state.who}` : "Your name";
    if (apart && !personName() && !byId("name").open) this.ask();
  }
}
