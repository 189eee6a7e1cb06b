/** The calm screens: the model is being trained, the next questions are looked for, all is done. */

import { drawCurve } from "./curve.js";
import { duration } from "./says.js";

const byId = (id) => document.getElementById(id);

const SAYS = {
  loading: ["One moment", "The page asks the server how far the run is."],
  labelling: ["One moment", "The next questions are being prepared."],
  training: ["The model is being trained", "It learns from what you labelled. Take a break: "
    + "the next questions come by themselves, and the title of this tab tells when they are there."],
  answered: ["This round is answered", "The page goes on by itself when alseg is started again."],
  stopped: ["Stopped", "This page goes on by itself once alseg is started again."],
  finished: ["All done, thank you", "Everything you labelled is on disk. You can close this tab."],
};

function writeTime(training) {
  const bar = byId("waiting-bar");
  const words = byId("waiting-time");
  bar.hidden = words.hidden = training === null;
  if (training === null) return;
  const { seconds_so_far: so_far, expected_seconds: expected } = training;
  if (expected === null || expected <= 0) {
    bar.removeAttribute("value");
    words.textContent = `${duration(so_far)} so far`;
    return;
  }
  bar.value = Math.min(0.99, so_far / expected);
  words.textContent = so_far <= expected
    ? `${duration(so_far)} of about ${duration(expected)}`
    : `${duration(so_far)}, a little longer than the ${duration(expected)} expected`;
}

/** The title, the sentence below it and the message of a waiting screen. */
function said({ phase, message }) {
  if (phase === "labelling" && message) return ["Nothing to answer now", message, ""];
  return [...(SAYS[phase] ?? SAYS.loading), message ?? ""];
}

/** Show the state of a run in which nothing is to be answered now. */
export function writeWaiting(state) {
  const [title, text, message] = said(state);
  const heading = byId("waiting-title");
  if (heading.textContent !== title) heading.textContent = title;
  byId("waiting-text").textContent = text;
  byId("waiting-message").textContent = message;
  byId("waiting-message").hidden = message === "";
  byId("undo-last").hidden = !state.can_undo;
  writeTime(state.phase === "training" ? state.training ?? null : null);
  drawCurve(byId("curve"), state.history ?? []);
  document.title = `${title} · ${state.run}`;
}

/** What to announce when a waiting screen comes up. */
export function spokenWaiting(state) {
  return said(state).filter(Boolean).join(". ");
}
