/** The server, as the page sees it: state, actions, and a connection that heals by itself. */

import { personName } from "./people.js";

const RETRY_MS = 1000;
const PATIENCE_MS = 15000;
const PAGE = Math.random().toString(36).slice(2); // this page, among those that are open

/** The same post twice does no harm; after a lost reply these are simply sent again. */
const HARMLESS_TWICE = new Set(["answer", "unsure", "pick"]);

/** No reply came: the server is gone, restarting, or hangs. */
class ConnectionLost extends Error {}

/** The server replied that it will not do it. `status` is the HTTP status. */
export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

async function request(path, options) {
  let reply;
  let body;
  try {
    const headers = { ...options?.headers, "X-Alseg-Who": encodeURIComponent(personName()), "X-Alseg-Page": PAGE };
    reply = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS), ...options, headers });
    body = await reply.text();
  } catch (error) {
    throw new ConnectionLost(String(error));
  }
  let value = {};
  try {
    value = JSON.parse(body);
  } catch {
    if (reply.ok) throw new ConnectionLost("The reply was cut off.");
  }
  if (!reply.ok) throw new Refused(value.error ?? `The server replied ${reply.status}.`, reply.status);
  return value;
}

/** What an action changes; an undo or skip whose reply got lost is sent again only if this stands. */
function fingerprint(state) {
  const { item, y, x, skips } = state.queue[0] ?? {};
  const { done, unsure, skipped } = state.progress;
  return JSON.stringify([state.phase, state.round, item, y, x, skips, done, unsure, skipped]);
}

export class Api {
  /** `onLost(sending)` when the connection breaks, `onBack()` when it is there again. */
  constructor({ onLost, onBack }) {
    this.onLost = onLost;
    this.onBack = onBack;
    this.lost = false;
    this.sending = false;
  }

  /** The whole state; waits as long as it takes. */
  state() {
    return this.#persist(() => request("/api/state"));
  }

  points(image) {
    return request(`/api/points/${image}`);
  }

  /** Do `kind` and return the new state; waits as long as it takes. Throws Refused. */
  async send(kind, body, before) {
    const options = {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Alseg-Run": before.run_id },
      body: JSON.stringify(body),
    };
    let again = false;
    this.sending = true;
    try {
      return await this.#persist(async () => {
        if (again && !HARMLESS_TWICE.has(kind)) {
          const now = await request("/api/state");
          if (fingerprint(now) !== fingerprint(before)) return now;
        }
        again = true;
        return request(`/api/${kind}`, options);
      });
    } finally {
      this.sending = false;
    }
  }

  async #persist(task) {
    for (;;) {
      try {
        const value = await task();
        this.#found();
        return value;
      } catch (error) {
        if (error instanceof Refused && error.status < 500) {
          this.#found();
          throw error;
        }
        if (!(error instanceof ConnectionLost || error instanceof Refused)) throw error;
        this.lost = true;
        this.onLost(this.sending, error instanceof Refused ? error.message : "");
        await pause(RETRY_MS);
      }
    }
  }

  #found() {
    if (!this.lost) return;
    this.lost = false;
    this.onBack();
  }
}
