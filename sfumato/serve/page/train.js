// Trainings: choose a folder, look at what is wrong with it, train, watch, stop, use.

import { ask, fileAddress } from "./api.js";
import { chart } from "./chart.js";
import { refresh } from "./compose.js";
import { button, find, make, note, picture, short } from "./dom.js";

const room = find("#room-train");
const EVERY = 2000;
const RECIPES = ["", "default", "text", "icons", "words", "transformer", "ddpm", "score", "edm"];
const parts = {};
let chosen = null; // the training that is shown
let rows = [];
let shownPreview = null;
let timer = 0;

function field(label, element) {
  return make("label", { class: "field" }, `${label} `, element);
}

function build() {
  parts.source = make("select", { name: "source", required: true });
  parts.name = make("input", { name: "name", maxlength: "60", pattern: "[\\w .\\-]*", placeholder: "as the folder" });
  parts.minutes = make("input", { name: "minutes", type: "number", min: "0.1", max: "10000", step: "any", value: "5" });
  parts.size = make("input", { name: "size", type: "number", min: "8", max: "1024", placeholder: "own" });
  parts.recipe = make("select", { name: "recipe" }, RECIPES.map((name) => make("option", { value: name }, name || "what fits")));
  parts.text = make("input", { type: "checkbox" });
  parts.audit = make("div", { "aria-live": "polite" });
  parts.list = make("ul", { class: "works" });
  parts.shown = make("div", {});
  parts.empty = make("p", { class: "soft", hidden: true }, "This server may read no folders. Start it with sfumato serve --allow FOLDER to audit and train on what is in it.");
  const form = make("form", { class: "card", id: "training" },
    make("h2", {}, "A model of your own"),
    parts.empty,
    field("Folder", parts.source),
    make("div", { class: "tools" }, button("Audit it", audit, { id: "audit" }), make("label", { class: "tick" }, parts.text, " text and watermarks too (slow)")),
    make("div", { class: "row" }, field("Minutes", parts.minutes), field("Size", parts.size)),
    make("div", { class: "row" }, field("Name", parts.name), field("Recipe", parts.recipe)),
    make("div", { class: "row buttons" }, make("button", { class: "main", type: "submit" }, "Train")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    train();
  });
  const list = make("div", { class: "card" }, make("h2", {}, "Trainings"), parts.list);
  room.replaceChildren(make("div", {}, form, list), make("div", {}, parts.audit, parts.shown));
}

/** Show the room; it is kept up to date until `leave`. */
export async function show() {
  if (!parts.source) build();
  try {
    const { sources } = await ask("GET", "/api/sources");
    const before = parts.source.value;
    parts.source.replaceChildren(...sources.map((name) => make("option", { value: name }, name)));
    if (sources.includes(before)) parts.source.value = before;
    parts.empty.hidden = sources.length > 0;
    for (const one of find("#training").querySelectorAll("button")) one.disabled = !sources.length;
    await list();
  } catch (error) {
    note(error.message);
  }
  clearInterval(timer);
  timer = setInterval(() => document.hidden || list().catch((error) => note(error.message)), EVERY);
}

export function leave() {
  clearInterval(timer);
}

async function list() {
  const { trainings } = await ask("GET", "/api/trainings");
  chosen ??= trainings[0]?.id ?? null;
  const items = trainings.map((work) => make("li", {}, button("", () => choose(work.id), { "aria-pressed": String(work.id === chosen), "data-work": work.id })));
  trainings.forEach((work, k) => items[k].firstChild.append(make("span", {}, work.name), make("span", {}, work.state)));
  const told = JSON.stringify(trainings.map((work) => [work.id, work.state, chosen]));
  if (told !== parts.told) {
    const focused = document.activeElement?.dataset?.work;
    parts.list.replaceChildren(...(items.length ? items : [make("li", { class: "soft" }, "None yet.")]));
    if (focused) parts.list.querySelector(`[data-work="${focused}"]`)?.focus();
    parts.told = told;
  }
  if (chosen) await follow();
}

async function choose(id) {
  chosen = id;
  rows = [];
  shownPreview = null;
  await list().catch((error) => note(error.message));
}

async function follow() {
  const id = chosen;
  const work = await ask("GET", "/api/trainings/{name}", { name: id, query: { after: rows.at(-1)?.step ?? -1 } });
  if (id !== chosen) return;
  rows.push(...work.rows);
  if (work.preview && work.preview !== shownPreview?.hash) {
    const seen = picture(fileAddress(work.preview), "what the model draws now");
    seen.className = "preview";
    shownPreview = { hash: work.preview, element: make("figure", {}, make("h3", {}, "What it draws"), seen) };
  }
  const x = (row) => (row.images ?? row.step) / 1000;
  const of = (list, name) => ({ name, points: list.map((row) => [x(row), row[name]]) });
  const quality = (list, name, label) => chart(label, [of(list, name)], "k pictures seen");
  const losses = [{ ...of(rows, "loss"), name: "training" }, { ...of(rows, "validation_loss"), name: "held out" }];
  const charts = [chart("Loss", losses, "k pictures seen"), quality(work.meter, "kid", "KID (lower is better)"), quality(work.meter, "copies", "Share of copies")].filter(Boolean);
  const does = work.state === "running"
    ? [button("Stop", () => act("DELETE"), { id: "stop" })]
    : [button(work.model ? `Served as ${work.model}` : "Use it", () => act("USE"), { id: "use", disabled: Boolean(work.model) })];
  const newest = rows.at(-1);
  const facts = [["Source", work.source], ["State", work.state], ["Steps", newest?.step], ["Minutes", newest && short(newest.seconds / 60)]].filter(([, value]) => value !== undefined);
  const focused = parts.shown.contains(document.activeElement) ? document.activeElement.id : null;
  parts.shown.replaceChildren(make("div", { class: "card", "data-training": id },
    make("div", { class: "about" }, make("h2", {}, work.name), make("span", { class: "tools" }, does)),
    make("p", { class: work.error ? "bad" : "soft" }, work.error ?? (work.state === "running" ? work.line || "begins" : "")),
    make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])),
    make("div", { class: "charts" }, charts, shownPreview?.element)));
  if (focused) document.getElementById(focused)?.focus();
}

async function act(what) {
  try {
    if (what === "USE") {
      const { model } = await ask("POST", "/api/trainings/{name}/use", { name: chosen });
      await refresh(model);
      note(`${model} is served now, and chosen in Make.`);
    } else await ask("DELETE", "/api/trainings/{name}", { name: chosen });
    await list();
  } catch (error) {
    note(error.message);
  }
}

async function train() {
  const number = (element) => (element.value === "" ? null : Number(element.value));
  const body = { source: parts.source.value, name: parts.name.value.trim(), minutes: Number(parts.minutes.value), size: number(parts.size), recipe: parts.recipe.value || null };
  try {
    await choose((await ask("POST", "/api/trainings", { body })).id);
  } catch (error) {
    note(error.message);
  }
}

async function audit() {
  try {
    const { id } = await ask("POST", "/api/audit", { body: { folder: parts.source.value, text: parts.text.checked } });
    const stop = button("Stop", () => ask("DELETE", "/api/audit/{name}", { name: id }).catch((error) => note(error.message)));
    const line = make("span", { class: "soft" });
    parts.audit.replaceChildren(make("div", { class: "card", "data-audit": id }, make("h2", {}, "Audit"), make("div", { class: "tools" }, line, stop)));
    const read = async () => {
      const work = await ask("GET", "/api/audit/{name}", { name: id });
      line.textContent = work.line || "begins";
      if (work.state === "running") setTimeout(() => read().catch((error) => note(error.message)), 700);
      else found(work);
    };
    await read();
  } catch (error) {
    note(error.message);
  }
}

function found(work) {
  const card = parts.audit.firstChild;
  const told = work.result;
  if (!told) {
    card.replaceChildren(make("h2", {}, "Audit"), make("p", { class: "bad" }, work.error ?? work.state));
    return;
  }
  const faults = Object.entries(told.faults ?? {}).map(([kind, all]) => {
    const files = all.reduce((sum, one) => sum + one.files.length, 0);
    const lines = all.slice(0, 20).map((one) => make("li", {}, [one.files.slice(0, 3).join(", "), one.evidence].filter(Boolean).join(": ")));
    return make("details", {}, make("summary", {}, `${kind.replaceAll("_", " ")}: ${files ? `${files} files` : "the set"}`), make("ul", { class: "faults" }, lines), all.length > 20 && make("p", { class: "soft" }, `and ${all.length - 20} more`));
  });
  card.replaceChildren(make("h2", {}, "Audit"), make("p", {}, told.verdict), make("p", { class: "soft" }, `${told.images} pictures in ${work.source}`), ...faults);
}
