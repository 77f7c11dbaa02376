// The jobs, newest first: what waits, what is being drawn with previews, what was drawn.

import { ENDED, ask, fileAddress, jobOf, known, remember, unwatch, watch } from "./api.js";
import { begin, choose, recall, recallLayout, stored } from "./compose.js";
import { button, find, make, note, picture } from "./dom.js";
import { look } from "./viewer.js";

export const TASKS = { generate: "Drawn", inpaint: "Filled", outpaint: "Zoomed out", upscale: "Upscaled", vary: "Varied", sketch: "From a sketch", layout: "From a layout" };
const SHOWN = 40;
const EVERY = 4000;
const cards = new Map();

/** Put a job of this name on top. */
export async function add(id) {
  hear(await jobOf(id));
  count();
}

/** Read the newest jobs now, and again from time to time: other windows and programs draw too. */
export async function start() {
  let told = null;
  const read = async () => {
    if (document.hidden) return;
    try {
      const { jobs } = await ask("GET", "/api/jobs", { query: { limit: SHOWN } });
      for (const job of jobs.reverse()) hear(job);
      count();
      told = null;
    } catch (error) {
      if (told !== error.message) note((told = error.message));
    }
  };
  await read();
  setInterval(read, EVERY);
}

function count() {
  const live = [...known.values()].filter((job) => !ENDED.includes(job.state));
  const running = live.filter((job) => job.state === "running").length;
  const words = [running && `${running} drawing`, live.length - running && `${live.length - running} waiting`].filter(Boolean);
  const text = words.join(", ");
  if (find("#queue").textContent !== text) find("#queue").textContent = text;
  find("#feed-empty").hidden = cards.size > 0;
}

function hear(job) {
  let card = cards.get(job.id);
  if (card && ENDED.includes(card.state)) return; // older news that came later
  remember(job);
  if (!card) {
    card = new Card(job);
    cards.set(job.id, card);
    const after = [...cards.values()].filter((one) => one.number < job.number).sort((a, b) => b.number - a.number)[0];
    find("#feed").insertBefore(card.element, after?.element ?? null);
    if (!ENDED.includes(job.state)) watch(job.id, (name, data) => card.event(name, data));
  }
  card.update(job);
}

class Card {
  constructor(job) {
    this.number = job.number;
    this.id = job.id;
    this.said = make("span", { class: "soft" });
    this.bar = make("progress", { max: "1", "aria-label": "Progress" });
    this.buttons = make("span", { class: "tools" });
    this.grid = make("div", { class: "grid" });
    this.title = make("p", {});
    this.notes = make("div", { class: "soft" });
    this.element = make("article", { class: "card", "data-job": job.id }, make("div", { class: "about" }, this.title, this.said, this.buttons), this.grid, this.bar, this.notes);
  }

  update(job) {
    if (this.state === job.state && !ENDED.includes(job.state)) {
      this.say(job);
      return;
    }
    this.state = job.state;
    const request = job.request ?? {};
    this.title.textContent = titleOf(job);
    this.element.setAttribute("aria-label", `${TASKS[job.task]}: ${titleOf(job)}`);
    this.say(job);
    const ended = ENDED.includes(job.state);
    this.bar.hidden = ended;
    this.buttons.replaceChildren(...(ended ? [button("Again", () => again(job), { title: "Bring these settings into the form" })] : [button("Cancel", () => cancel(job.id))]));
    const n = ended ? job.files.length : request.n ?? 1;
    this.grid.className = `grid ${n === 1 ? "one" : n < 3 ? "few" : n === 4 ? "four" : ""}`;
    if (ended) this.grid.replaceChildren(...job.files.map((file, k) => tile(job, file, k)));
    else {
      this.previews = Array.from({ length: n }, () => make("div", { class: "tile waits" }));
      const [width, height] = request.size ?? [1, 1];
      for (const one of this.previews) one.style.setProperty("--shape", `${width} / ${height}`);
      this.grid.replaceChildren(...this.previews);
    }
  }

  say(job) {
    if (job.state === "queued") this.said.textContent = job.position ? `waits, ${job.position} before it` : "waits";
    else if (job.state === "running") this.step(job.step, job.of);
    else if (job.state === "done") {
      this.said.textContent = [TASKS[job.task], job.model, `${job.result.seconds.toFixed(1)} s`].join(" · ");
      this.notes.replaceChildren(...(job.result.warnings ?? []).map((text) => make("p", {}, text)));
    } else {
      this.said.textContent = job.state === "cancelled" ? "cancelled" : job.error?.message ?? "failed";
      this.said.classList.toggle("bad", job.state === "failed");
    }
  }

  step(step, of) {
    this.said.textContent = step ? `step ${step} of ${of}` : "begins";
    if (step) this.bar.value = step / of;
    else this.bar.removeAttribute("value");
  }

  event(name, data) {
    const job = known.get(this.id);
    if (ENDED.includes(name)) hear(data);
    else if (name === "queued") hear({ ...job, state: "queued", position: data.position });
    else {
      hear({ ...job, state: "running", step: data.step, of: data.of });
      data.previews.forEach((text, k) => {
        const place = this.previews[k];
        if (!place) return;
        place.classList.remove("waits");
        if (!place.firstChild) place.append(picture("", "preview"));
        place.firstChild.src = `data:${data.mime};base64,${text}`;
      });
    }
    count();
  }
}

/** What a job is about, in words. */
export function titleOf(job) {
  const boxes = (job.request?.layout?.boxes ?? []).map((box) => box.text).join(" · ");
  return [job.prompt, boxes].filter(Boolean).join(" · ") || TASKS[job.task];
}

/** A picture that opens when pressed. */
export function tile(job, file, k) {
  const words = job.result?.captions?.[k] || titleOf(job);
  const seen = picture(fileAddress(file.hash), words);
  seen.loading = "lazy";
  return make("button", { class: "tile", type: "button", vars: { "--shape": `${file.width} / ${file.height}` }, onclick: () => look(job.id, k), "data-hash": file.hash }, seen);
}

async function cancel(id) {
  try {
    hear(await ask("DELETE", "/api/jobs/{name}", { name: id }));
    unwatch(id);
    count();
  } catch (error) {
    note(error.message);
  }
}

/** The settings of a job in the form, and what it was made from; its seed too where `exact`. */
export function again(job, exact = false) {
  const asked = job.request;
  const from = asked.sketch ?? asked.images?.[0];
  recall({ ...asked, seed: exact ? asked.seed : null, size: asked.size?.join("x") });
  if (asked.layout) recallLayout(asked.layout);
  else if (from && ["sketch", "inpaint", "vary"].includes(job.task)) begin(job.task, stored(from, job.parents));
  else choose("generate");
  location.hash = "make";
  find("#prompt").focus();
}
