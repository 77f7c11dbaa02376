// The Studio: rooms, keys, theme, and pictures that are dropped.

import { begin, draw, hashOf, materialOf, model, number, recall, send, start as startComposer } from "./compose.js";
import { button, find, make, note, picture, typing } from "./dom.js";
import { add, start as startFeed } from "./feed.js";
import * as gallery from "./gallery.js";
import { fieldsOf, settingsOf } from "./png.js";
import * as train from "./train.js";

const ROOMS = ["make", "gallery", "train"];
const THEMES = ["", "light", "dark"];
const NAMES = { "": "Colours: auto", light: "Colours: light", dark: "Colours: dark" };

function enter() {
  const room = ROOMS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "make";
  for (const name of ROOMS) {
    find(`#room-${name}`).hidden = name !== room;
    const link = find(`[data-room="${name}"]`);
    if (name === room) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (room === "gallery") gallery.show();
  if (room === "train") train.show();
  else train.leave();
}

function dress(theme) {
  document.documentElement.dataset.theme = theme;
  find("#theme").textContent = NAMES[theme];
  localStorage.setItem("sfumato.theme", theme);
}

/** A picture that came from outside: its settings where our mark is in it, and what can be done with it. */
async function taken(file) {
  const given = await materialOf(file);
  if (!given) return;
  location.hash = "make";
  const mark = await settingsOf(file);
  const away = () => find("#dropped").replaceChildren();
  const edit = async (task, more) => {
    try {
      await send({ model: model().name, task, image: await hashOf(given), ...more });
      away();
    } catch (error) {
      note(error.message);
    }
  };
  const work = (mode) => () => {
    begin(mode, given);
    away();
  };
  const words = mark ? fieldsOf(mark).prompt || "no words" : "";
  const back = mark && button("Recall settings", () => {
    recall(fieldsOf(mark));
    away();
    find("#prompt").focus();
  }, { class: "main" });
  const seen = picture(given.src, file.name);
  seen.className = "thumb";
  find("#dropped").replaceChildren(make("div", { class: "card" },
    make("div", { class: "about" }, make("p", {}, mark ? `Made by ${mark.model}: ${words}` : `${file.name}: no settings of ours in it`)),
    seen,
    make("div", { class: "actions" }, back, button("Fill", work("inpaint")), button("Vary", work("vary")), button("As a sketch", work("sketch")),
      button("Upscale ×2", () => edit("upscale", { scale: 2 })), button("Zoom out", () => edit("outpaint", { zoom: 1.5, n: number() })), button("Away", away, { class: "quiet" }))));
}

function dropping() {
  const files = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  let deep = 0;
  addEventListener("dragenter", (event) => files(event) && document.body.classList.toggle("over", ++deep > 0));
  addEventListener("dragleave", (event) => files(event) && document.body.classList.toggle("over", --deep > 0));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    deep = 0;
    document.body.classList.remove("over");
    if (event.dataTransfer.files[0]) taken(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) taken(file);
  });
}

function keys() {
  addEventListener("keydown", (event) => {
    const open = find("dialog[open]");
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter" && !open && !typing()) draw();
    if (open || typing() || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      event.preventDefault();
      location.hash = "make";
      enter();
      find("#prompt").focus();
    } else if (event.key === "?") find("#keys").showModal();
    else if (ROOMS["123".indexOf(event.key)] && event.key.length === 1) location.hash = ROOMS[Number(event.key) - 1];
  });
}

async function begins() {
  dress(localStorage.getItem("sfumato.theme") ?? "");
  find("#theme").addEventListener("click", () => dress(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length]));
  find("#help").addEventListener("click", () => find("#keys").showModal());
  addEventListener("hashchange", enter);
  gallery.start();
  dropping();
  keys();
  try {
    await startComposer(add);
    await startFeed();
  } catch (error) {
    note(error.message);
  }
  enter();
}

begins();
