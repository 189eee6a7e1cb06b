/** What may lie over the image at the person's wish: prediction, utility map, points so far. */

import { Refused } from "./api.js";
import { recall, remember } from "./settings.js";
import { stageNote } from "./says.js";

const UNSURE = { colour: "#808080", letter: "?" };
const MAPS = ["prediction", "utility"];
const WORDS = { prediction: "prediction", utility: "utility map" };

/** Where pixels are to be picked, prediction and points are shown unless the person hides them there. */
const DEFAULTS = { asking: { guess: true }, picking: { guess: true, prediction: true, points: true } };

/** The same for the pick and for the class asked after it, so that the picture does not flicker. */
function modeOf(state) {
  return state.picks ? "picking" : "asking";
}

export class Overlays {
  #shown = { asking: recall("shown.asking", DEFAULTS.asking), picking: recall("shown.picking", DEFAULTS.picking) };
  #turn = 0;
  points = null; // as the server sent them for the image on the stage

  constructor({ api, pictures, stage }) {
    Object.assign(this, { api, pictures, stage });
    stage.scene.opacity = recall("opacity", 0.5);
  }

  /** Whether `kind` (guess, prediction, utility, points) is switched on for such questions, and `item` may have it. */
  isOn(kind, state, item) {
    if (item.blind) return false; // it checks the model, or an answer that was given before
    return Boolean(this.#shown[modeOf(state)][kind]);
  }

  /** Why `kind` cannot be switched now, or "". */
  objection(kind, state, item) {
    if (item.blind) return "This question is asked without the model’s guess, maps and points in sight.";
    return kind === "points" || state.has_model ? "" : "There is no model yet: from the second round on.";
  }

  toggle(kind, state) {
    const mode = modeOf(state);
    const shown = this.#shown[mode];
    shown[kind] = !shown[kind];
    if (MAPS.includes(kind) && shown[kind]) shown[MAPS.find((other) => other !== kind)] = false;
    remember(`shown.${mode}`, shown);
  }

  setOpacity(opacity) {
    this.stage.scene.opacity = opacity;
    remember("opacity", opacity);
    this.stage.plan();
  }

  mapOf(state, item) {
    return state.has_model ? MAPS.find((kind) => this.isOn(kind, state, item)) ?? null : null;
  }

  /** The picture request of the map that an item will be shown with, or null. */
  request(state, item) {
    const kind = this.mapOf(state, item);
    if (!kind) return null;
    const version = `run=${encodeURIComponent(state.run)}&session=${encodeURIComponent(state.session)}&round=${state.round}`;
    return { url: `/api/${kind}/${item.image}?${version}`, size: null };
  }

  /** Lay over the image what is at hand; what is not, follows as soon as it is there. */
  prepare(state, item, sameImage) {
    const request = this.request(state, item);
    this.stage.scene.overlay = request ? this.pictures.get(request.url) ?? null : null;
    this.points = null;
    if (!sameImage || !this.isOn("points", state, item)) this.stage.scene.points = [];
    stageNote("");
    this.#turn += 1;
  }

  /**
   * Fetch what `prepare` had not at hand; resolves when the points are there, if wanted (a map
   * may take seconds more). `look(className)` gives the {colour, letter} of a point.
   */
  complete(state, item, look) {
    const turn = this.#turn;
    const current = () => turn === this.#turn;
    this.#map(state, item, current);
    return this.#points(state, item, look, current);
  }

  async #map(state, item, current) {
    const request = this.request(state, item);
    if (!request || this.stage.scene.overlay) return;
    const words = WORDS[this.mapOf(state, item)];
    stageNote(`Loading the ${words} …`);
    try {
      const picture = await this.pictures.load(request);
      if (!current()) return;
      this.stage.scene.overlay = picture;
      stageNote("");
      this.stage.plan();
    } catch (error) {
      if (current()) stageNote(error instanceof Refused ? `No ${words} of this image.` : `The ${words} could not be loaded.`);
    }
  }

  async #points(state, item, look, current) {
    if (!this.isOn("points", state, item) && item.y !== null) return;
    let points;
    try {
      points = await this.api.points(item.image);
    } catch {
      return; // the next question asks again
    }
    if (!current()) return;
    this.points = points;
    if (this.isOn("points", state, item)) {
      this.stage.scene.points = points
        .filter(({ item: id }) => id !== item.item)
        .map((point) => ({ ...point, ...(point.class === null ? UNSURE : look(point.class)) }));
    }
    this.stage.plan();
  }
}
