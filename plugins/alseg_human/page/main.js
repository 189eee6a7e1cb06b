/** Ties keys, buttons and gestures to what they do. */

import { Api } from "./api.js";
import { Gestures } from "./gestures.js";
import { Keyboard } from "./keyboard.js";
import { classOf, keyLength } from "./keys.js";
import { KeysDialog } from "./keysdialog.js";
import { PictureCache } from "./pictures.js";
import { People } from "./people.js";
import { endBanner, sayIgnored, showBanner } from "./says.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";

const ZOOM_STEP = 1.5;
const PAN_STEP = 80; // CSS pixels
const OTHER_RUN_MS = 2000; // for which it is said that the page is of another run
const CURSOR_STEP = 12; // CSS pixels, at least one image pixel

const byId = (id) => document.getElementById(id);

const api = new Api({
  onLost: (sending, trouble) => showBanner(trouble
    ? `${trouble} Trying again every second; what was answered before is on disk.`
    : sending ? "Connection to alseg lost. Your last answer is kept here and sent again every second; everything before it is on disk."
    : "Connection to alseg lost. Nothing is lost: every answer is on disk. Trying again every second."),
  onBack: () => endBanner("Connected again. Nothing was lost."),
});
const pictures = new PictureCache();
const screen = new Screen({ api, pictures, onAnswer: (index, event) => answer(index, event) });
const people = new People(() => location.reload());
const session = new Session({
  api, pictures, screen, people,
  onOtherRun: loadAgain,
  onRefused: showBanner,
  onGranted: () => endBanner("It goes on. Nothing was lost."),
});
const keysDialog = new KeysDialog((keys) => screen.useKeys(keys));
const { stage, overlays, list } = screen;

function loadAgain() {
  showBanner("alseg serves another run here by now; the page is loaded again.");
  setTimeout(() => location.reload(), OTHER_RUN_MS);
}

const setPrefix = (letter) => list.setPrefix(letter);

const isPick = () => session.item?.y === null;

/** True if the event may act on the question now; else the person is told why not. */
function taken(event, options) {
  const objection = session.objection(event, options);
  if (objection) sayIgnored(objection);
  return objection === "";
}

function answer(index, event, rolled = false) {
  setPrefix("");
  if (!taken(event, { rolled })) return;
  if (isPick()) {
    sayIgnored(screen.classes.length && session.state.asks_class
      ? "Click a pixel first, then give its class." : "Click a pixel: its class is known.");
    return;
  }
  list.flash(index);
  list.clearFilter();
  session.answer(screen.classes[index].name, event);
}

/** A letter or digit was pressed: a class, or the first of two letters. */
function press(label, event, rolled) {
  const twoLetters = keyLength(screen.classes.length) === 2 && /[a-z]/.test(label);
  const { prefix } = list; // the first of two letters
  const key = twoLetters ? prefix + label : label;
  if (twoLetters && !prefix) {
    if (!taken(event, { rolled })) return;
    if (screen.keys.some((other) => other.startsWith(label))) setPrefix(label);
    else sayIgnored(`No class has a key that begins with ${label}.`);
    return;
  }
  const index = classOf(screen.keys, key);
  if (index >= 0) {
    answer(index, event, rolled);
  } else {
    setPrefix("");
    sayIgnored(`No class has the key ${key}.`);
  }
}

function pickAt(pixel, event) {
  if (pixel && taken(event)) session.pick(pixel, event);
}

function agree(event, rolled) {
  if (isPick()) pickAt(stage.scene.cursor, event);
  else if (screen.guess >= 0) answer(screen.guess, event, rolled);
  else sayIgnored("There is no guess to agree with.");
}

function undo() {
  if (list.prefix) setPrefix("");
  else if (session.state?.can_undo || session.sending) session.undo();
  else sayIgnored("There is nothing to undo.");
}

function unsure(event, rolled) {
  if (isPick()) sayIgnored("Click a pixel first, or skip with Space.");
  else if (taken(event, { rolled })) session.unsure(event);
}

function toggle(kind) {
  if (!session.item) return;
  const objection = overlays.objection(kind, session.state, session.item);
  if (objection) {
    sayIgnored(objection);
    return;
  }
  overlays.toggle(kind, session.state);
  pictures.want(screen.requests(session.state));
  screen.update();
}

/** Zoom at the asked pixel, or at the cursor of the person who picks. */
function zoom(factor) {
  const { item, cursor } = stage.scene;
  const target = item?.y === null ? cursor : item;
  if (!target) return;
  stage.view.centre(target.x + 0.5, target.y + 0.5);
  stage.view.zoomBy(factor, ...stage.view.toStage(target.x + 0.5, target.y + 0.5));
  stage.plan();
}

/** An arrow key: pan, or move the cursor of the person who picks. */
function arrow(across, down, shift) {
  const { view, scene } = stage;
  if (!isPick()) {
    view.panBy(-across * PAN_STEP, -down * PAN_STEP);
    stage.plan();
    return;
  }
  const step = shift ? 1 : Math.max(1, Math.round(CURSOR_STEP / view.scale));
  const { y, x } = scene.cursor ?? { y: 0, x: 0 };
  screen.moveCursor(y + down * step, x + across * step);
  const [left, top] = view.toStage(scene.cursor.x + 0.5, scene.cursor.y + 0.5);
  if (left < 0 || top < 0 || left > view.width || top > view.height) view.centre(scene.cursor.x, scene.cursor.y);
}

const commands = {
  undo,
  skip: (event, { rolled }) => taken(event, { rolled, blind: true }) && session.skip(),
  unsure: (event, { rolled }) => unsure(event, rolled),
  agree: (event, { rolled }) => agree(event, rolled),
  cancel: () => setPrefix(""),
  "zoom-in": () => zoom(ZOOM_STEP),
  "zoom-out": () => zoom(1 / ZOOM_STEP),
  fit: () => { stage.view.fit(); stage.plan(); },
  left: (_, { shift }) => arrow(-1, 0, shift),
  right: (_, { shift }) => arrow(1, 0, shift),
  up: (_, { shift }) => arrow(0, -1, shift),
  down: (_, { shift }) => arrow(0, 1, shift),
  "toggle-guess": () => toggle("guess"),
  "toggle-prediction": () => toggle("prediction"),
  "toggle-utility": () => toggle("utility"),
  "toggle-points": () => toggle("points"),
  find: () => byId("filter-row").hidden || byId("filter").focus(),
  magnify: () => screen.loupe.magnify(),
  "open-keys": () => screen.classes.length && keysDialog.open(screen.classes, screen.keys),
  "open-help": () => byId("help").showModal(),
};
const BUTTONS = { "undo-last": "undo", "zoom-fit": "fit", loupe: "magnify" };
const EVERYWHERE = new Set(["open-keys", "open-help"]); // also on the waiting screens

new Keyboard((meaning, event, rolled) => {
  const everywhere = EVERYWHERE.has(meaning.command) || (meaning.command === "undo" && session.state?.can_undo);
  if (!session.item && !session.sending && !everywhere) return;
  if (meaning.label) press(meaning.label, event, rolled);
  else commands[meaning.command](event, { shift: meaning.shift, rolled });
});

for (const button of document.querySelectorAll("body > header button, main button")) {
  const command = commands[BUTTONS[button.id] ?? button.id];
  if (command) button.addEventListener("click", (event) => command(event, {}));
}
/* A mouse leaves no focus behind: Space and Enter are about the question again. */
document.addEventListener("click", (event) => {
  if (event.detail > 0 && !event.target.closest("dialog")) event.target.closest("button")?.blur();
}, true);
byId("reload-image").addEventListener("click", () => session.showAgain());
byId("opacity").addEventListener("input", ({ target }) => overlays.setOpacity(target.value / 100));
addEventListener("pointerup", () => document.activeElement === byId("opacity") && byId("opacity").blur());

new Gestures(byId("stage"), {
  onHover: (left, top) => {
    const pixel = isPick() ? stage.view.pixelAt(left, top) : null;
    if (pixel) screen.moveCursor(pixel.y, pixel.x);
  },
  onClick: (left, top, event) => {
    if (isPick()) pickAt(stage.view.pixelAt(left, top), event);
  },
  onPan: (dx, dy) => { stage.view.panBy(dx, dy); stage.plan(); },
  onZoom: (factor, left, top) => { stage.view.zoomBy(factor, left, top); stage.plan(); },
});

addEventListener("beforeunload", (event) => {
  if (session.sending) event.preventDefault(); // an answer is not on disk yet
});

session.start();
