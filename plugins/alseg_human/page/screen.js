/** Everything that is seen of a question: image, mark, loupe, words, classes; and the waiting screens. */

import { ClassList } from "./classlist.js";
import { loadKeys } from "./keys.js";
import { Loupe } from "./loupe.js";
import { Overlays } from "./overlays.js";
import { spokenQuestion, writeProgress, writeQuestion } from "./question.js";
import { announce, stageNote, toast } from "./says.js";
import { Stage } from "./stage.js";
import { spokenWaiting, writeWaiting } from "./waiting.js";

const AHEAD = 5; // images fetched beyond the one asked about

const byId = (id) => document.getElementById(id);

export class Screen {
  keys = []; // of the classes, in their order
  guess = -1; // the class that Enter would give now, or -1
  #classes = [];
  #state = null;
  #item = null;
  #told = "";

  constructor({ api, pictures, onAnswer }) {
    this.pictures = pictures;
    this.loupe = new Loupe(byId("loupe"));
    this.stage = new Stage(byId("stage"), () => this.#viewChanged());
    this.overlays = new Overlays({ api, pictures, stage: this.stage });
    this.list = new ClassList(byId("classes"), onAnswer);
    byId("opacity").value = Math.round(100 * this.stage.scene.opacity);
  }

  get classes() {
    return this.#classes;
  }

  imageRequest(state, item) {
    const version = `run=${encodeURIComponent(state.run)}&session=${encodeURIComponent(state.session)}`;
    return { url: `/api/image/${item.image}?${version}`, size: { width: item.width, height: item.height } };
  }

  /** What to have decoded, the most urgent first: images of the queue and the maps shown with them. */
  requests(state) {
    const firsts = state.queue.filter(({ image }, at) => state.queue.findIndex((other) => other.image === image) === at);
    return firsts.slice(0, 1 + AHEAD).flatMap((item) =>
      [this.imageRequest(state, item), this.overlays.request(state, item)].filter(Boolean));
  }

  show(state, item, picture) {
    const sameImage = this.#item?.image === item.image && this.#item.height === item.height;
    this.#state = state;
    this.#item = item;
    this.#open("labelling");
    this.#learnClasses(state.classes);
    this.list.setPrefix("");
    byId("failure").hidden = true;
    this.overlays.prepare(state, item, sameImage);
    this.#write();
    this.#placeCursor(item, sameImage);
    this.stage.show(item, picture);
    this.lookCloser();
  }

  /** After the frame: what may come later than the pixel itself. */
  async shown(state, item) {
    const completed = this.#complete();
    if (item.y === null) await completed; // then it is known how many were picked
    if (item !== this.#item) return;
    announce(`${this.#told} ${spokenQuestion(state, item, { guess: this.#shownGuess(), points: this.overlays.points })}`.trim());
    this.#told = "";
  }

  /** The numbers changed, or what the person wants to see. */
  update(state = this.#state) {
    if (!this.#item || !state) return;
    this.#state = state;
    this.overlays.prepare(state, this.#item, true);
    this.#write();
    this.stage.plan();
    this.#complete();
  }

  waiting(state) {
    const news = this.#state?.phase !== state.phase || this.#item !== null;
    this.#state = state;
    this.#item = null;
    writeProgress(state);
    writeWaiting(state);
    this.#open("waiting");
    if (news) announce(`${this.#told} ${spokenWaiting(state)}`.trim());
    this.#told = "";
  }

  told(text) {
    this.#told = toast(text);
  }

  refused(text) {
    this.#told = text;
    toast(text, "ignored");
  }

  saving(busy) {
    document.body.classList.toggle("saving", busy);
  }

  loading(item) {
    stageNote(`Loading ${item.name} …`);
  }

  failed(state, item, error) {
    this.#state = state;
    this.#item = item;
    this.#open("labelling");
    this.#learnClasses(state.classes);
    this.list.setPrefix("");
    this.#write();
    this.guess = -1; // nothing is seen, nothing can be agreed with
    byId("agree").hidden = true;
    stageNote("");
    Object.assign(this.stage.scene, { item, picture: null, overlay: null, points: [] });
    this.stage.draw();
    this.loupe.look(null, null);
    const text = `${item.name} could not be shown: ${error.message} Skip it with Space, or try again.`;
    byId("failure-text").textContent = text;
    byId("failure").hidden = false;
    announce(text);
  }

  useKeys(keys) {
    this.keys = keys;
    this.list.build(this.#classes, keys);
    this.update();
  }

  moveCursor(y, x) {
    const { imageHeight, imageWidth } = this.stage.view;
    const clamp = (value, size) => Math.min(size - 1, Math.max(0, value));
    this.stage.scene.cursor = { y: clamp(y, imageHeight), x: clamp(x, imageWidth) };
    this.stage.plan();
    this.lookCloser();
  }

  /** The loupe looks at the asked pixel, or at the cursor of the person who picks. */
  lookCloser() {
    const { item, picture, cursor } = this.stage.scene;
    this.loupe.look(picture, item?.y === null ? cursor : item);
  }

  #open(id) {
    for (const name of ["labelling", "waiting"]) byId(name).hidden = name !== id;
  }

  #learnClasses(classes) {
    if (JSON.stringify(classes) === JSON.stringify(this.#classes)) return;
    this.#classes = classes;
    this.keys = loadKeys(classes.map(({ name }) => name));
    this.list.build(classes, this.keys);
  }

  #indexOf(name) {
    return name === null ? -1 : this.#classes.findIndex((entry) => entry.name === name);
  }

  /** The key that stands for a class: its letters, or its digit where it has none. */
  #label(index) {
    return this.keys[index] || String(index + 1);
  }

  #shownGuess() {
    const entry = this.#classes[this.guess];
    return entry ? { ...entry, key: this.#label(this.guess) } : null;
  }

  #write() {
    const item = this.#item;
    const state = this.#state;
    const shown = item.y !== null && this.overlays.isOn("guess", state, item);
    this.guess = shown ? this.#indexOf(item.guess) : -1;
    writeProgress(state);
    writeQuestion(state, item, { guess: this.#shownGuess(), points: this.overlays.points });
    this.list.setGuess(this.guess);
    this.list.setUsable(item.y !== null);
    byId("stage").classList.toggle("picking", item.y === null);
    byId("undo").setAttribute("aria-disabled", String(!state.can_undo));
    byId("unsure").setAttribute("aria-disabled", String(item.y === null));
    this.#writeToggles(state);
  }

  #writeToggles(state) {
    for (const kind of ["guess", "prediction", "utility", "points"]) {
      const button = byId(`toggle-${kind}`);
      const objection = this.overlays.objection(kind, state, this.#item);
      button.setAttribute("aria-pressed", String(this.overlays.isOn(kind, state, this.#item)));
      button.setAttribute("aria-disabled", String(objection !== ""));
      button.title = objection;
    }
    const map = this.overlays.mapOf(state, this.#item);
    byId("opacity").hidden = map === null;
    byId("legend").hidden = map !== "utility";
  }

  async #complete() {
    const look = (name) => {
      const index = this.#indexOf(name);
      if (index < 0) return { colour: "#808080", letter: "·" };
      return { colour: this.#classes[index].colour, letter: this.#label(index) };
    };
    await this.overlays.complete(this.#state, this.#item, look);
    if (this.#item) writeQuestion(this.#state, this.#item, { guess: this.#shownGuess(), points: this.overlays.points });
  }

  #placeCursor(item, sameImage) {
    const { view, scene } = this.stage;
    if (item.y !== null) scene.cursor = null;
    else if (!sameImage || !scene.cursor) {
      view.setImage(item.width, item.height);
      scene.cursor = view.pixelAt(view.width / 2, view.height / 2);
    }
  }

  /** On a narrow screen the loupe lies over the image: keep it off the pixel. */
  #viewChanged() {
    const { view, scene } = this.stage;
    const target = scene.item?.y === null ? scene.cursor : scene.item;
    byId("zoom").textContent = scene.picture ? `${Math.round(100 * view.scale)} %` : "–";
    if (!target) return;
    const [left] = view.toStage(target.x, target.y);
    byId("loupe").dataset.side = left < view.width / 2 ? "right" : "left";
  }
}
