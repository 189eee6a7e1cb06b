/** Who is at the page: a name that this browser remembers, or ?who=NAME of the address. */

import { recall, remember } from "./settings.js";

const MOST = 60; // letters

const byId = (id) => document.getElementById(id);

const given = new URLSearchParams(location.search).get("who");
if (given) remember("who", given.trim().slice(0, MOST));

/** The name, or "" where none was given: then the server knows who runs it. */
export function personName() {
  return recall("who", "");
}

export class People {
  /** `onChange` once another name was given. */
  constructor(onChange) {
    byId("open-name").addEventListener("click", () => this.ask());
    byId("name").addEventListener("close", () => {
      const name = byId("name-input").value.trim().slice(0, MOST);
      if (!name || name === personName()) return;
      remember("who", name);
      onChange();
    });
  }

  ask() {
    byId("name-input").value = personName();
    byId("name").showModal();
  }

  /** Show who answers, where people are told apart; ask those who have not said it. */
  heed(state) {
    const apart = Boolean(state.asks_name);
    byId("open-name").hidden = !apart;
    byId("open-name").textContent = state.who ? `You: ${state.who}` : "Your name";
    if (apart && !personName() && !byId("name").open) this.ask();
  }
}
