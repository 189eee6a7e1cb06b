/** The server, as the page sees it: state, actions, and a connection that heals by itself. */

import { personName } from "./people.js";

const RETRY_MS = 1000;
const PATIENCE_MS = 15000;
const PAGE = Math.random().toString(36).slice(2); // this page, among those that are open

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

/** A name for an act, by which the server knows one that is sent again. */
function actName() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
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

  /** Do `kind` once and return the new state; sent until a reply comes, however long that takes. Throws Refused. */
  async send(kind, body, runId) {
    const options = {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Alseg-Run": runId },
      body: JSON.stringify({ ...body, act: actName() }),
    };
    this.sending = true;
    try {
      return await this.#persist(() => request(`/api/${kind}`, options));
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
