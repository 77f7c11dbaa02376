// The composer: what to draw, from words, lines, boxes, a masked picture or a whole one.

import { ask, fileAddress, upload } from "./api.js";
import { button, find, make, note, picture } from "./dom.js";
import { Easel } from "./easel.js";
import { Plan } from "./plan.js";

const HINTS = {
  generate: "",
  sketch: "Draw the outlines; the prompt says what they are.",
  layout: "Drag boxes and say what stands in each; the prompt is for the rest of the picture.",
  inpaint: "Paint over what should be drawn anew. All else stays as it is, to the pixel.",
  vary: "Drawn again from a picture: the stronger, the less of it remains.",
};
const GUIDES = { sketch: "sketch", layout: "boxes", inpaint: "known" };
const KEPT = ["prompt", "model", "style", "size", "n", "negative", "steps", "guidance", "chaos"];
const STORE = "sfumato.composer";

const form = find("#composer");
const field = (name) => form.elements[name];
let models = [];
let drawn = () => {};
let material = null; // the picture that is worked on: {hash or blob, src, parents}
let drawing = null; // a sketch from a file
const benches = {};

export const model = () => models.find((one) => one.name === field("model").value) ?? models[0];
export const mode = () => form.elements.mode.value;
export const number = () => Number(field("n").value) || 4;

/** Begin: `done(job)` hears of every job that the form sends. */
export async function start(done) {
  drawn = done;
  await refresh();
  const kept = JSON.parse(localStorage.getItem(STORE) ?? "{}");
  recall(kept, false);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  form.addEventListener("input", keep);
  field("model").addEventListener("change", changed);
  field("size").addEventListener("change", show);
  for (const one of form.elements.mode) one.addEventListener("change", show);
  find("#clear").addEventListener("click", clear);
  field("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) draw();
  });
  show();
}

/** Read the list of models again. */
export async function refresh(chosen = field("model").value) {
  models = (await ask("GET", "/api/models")).models;
  field("model").replaceChildren(...models.map((one) => make("option", { value: one.name }, one.name)));
  if (models.some((one) => one.name === chosen)) field("model").value = chosen;
  changed();
}

function changed() {
  const one = model();
  const style = field("style").value;
  field("style").replaceChildren(make("option", { value: "" }, "any"), ...one.styles.map((name) => make("option", { value: name }, name)));
  field("style").value = one.styles.includes(style) ? style : "";
  find("#style-field").hidden = !one.styles.length;
  const size = field("size").value;
  const [width, height] = one.size;
  const step = (side) => Math.max(one.multiple, Math.round(side / one.multiple) * one.multiple);
  const wide = [step(width * Math.sqrt(1.5)), step(height / Math.sqrt(1.5))];
  const sizes = [...one.sizes.slice(1), wide, [wide[1], wide[0]], [2 * width, 2 * height]].map((pair) => pair.join("x"));
  const options = [...new Set(sizes)].filter((text) => text !== `${width}x${height}`);
  field("size").replaceChildren(make("option", { value: "" }, `${width}x${height}`), ...options.map((text) => make("option", { value: text }, text)));
  field("size").value = options.includes(size) ? size : "";
  field("steps").placeholder = one.steps ?? "own";
  field("prompt").placeholder = one.slots.includes("text") ? "a red apple" : one.classes.length ? `one of: ${one.classes.slice(0, 6).join(", ")}` : "this model learned no words";
  show();
}

function keep() {
  localStorage.setItem(STORE, JSON.stringify(Object.fromEntries(KEPT.map((name) => [name, field(name).value]))));
}

/** Put fields back; those that are not told keep their values unless `all`. */
export function recall(fields, all = true) {
  if (fields.model && models.some((one) => one.name === fields.model)) {
    field("model").value = fields.model;
    changed();
  } else if (fields.model && all) note(`The model ${fields.model} is not served here; ${model().name} takes its place.`);
  for (const name of [...KEPT, "seed"].filter((one) => one !== "model")) {
    const value = fields[name];
    const given = value !== null && value !== undefined && value !== "";
    if (given && name === "size" && ![...field("size").options].some((one) => one.value === value)) {
      const [width, height] = model().size;
      if (value !== `${width}x${height}`) field("size").append(make("option", { value }, value));
    }
    if (given) field(name).value = value;
    else if (all) field(name).value = name === "n" ? "4" : "";
  }
  if (fields.negative || fields.steps || fields.chaos) find("#more").open = true;
  if (all) keep();
  show();
}

function clear() {
  form.reset();
  material = drawing = null;
  for (const name of Object.keys(benches)) delete benches[name];
  changed();
  keep();
  field("prompt").focus();
}

/** Work on a picture: mode "inpaint", "vary" or "sketch". */
export function begin(name, given) {
  form.elements.mode.value = name;
  if (name === "sketch") drawing = given;
  else {
    material = given;
    delete benches.inpaint;
  }
  show();
  form.scrollIntoView({ block: "start" });
  field("prompt").focus({ preventScroll: true });
}

/** Start from something else. */
export function choose(name) {
  form.elements.mode.value = name;
  show();
}

/** Put the boxes of a layout back. */
export function recallLayout(layout) {
  choose("layout");
  benches.layout.recall(layout);
}

/** A material from a File; null (and a note) when the browser cannot show it. */
export async function materialOf(file) {
  const src = URL.createObjectURL(file);
  const image = new Image();
  image.src = src;
  try {
    await image.decode();
  } catch {
    note(`${file.name}: the browser cannot read this as a picture.`);
    return null;
  }
  return { blob: file, src };
}

export async function hashOf(given) {
  given.hash ??= (await upload(given.blob)).hash;
  return given.hash;
}

export const stored = (hash, parents = []) => ({ hash, src: fileAddress(hash), parents });

function sides() {
  return field("size").value ? field("size").value.split("x").map(Number) : model().size;
}

function show() {
  if (!models.length) return;
  const name = mode();
  const guided = GUIDES[name] && !model().slots.includes(GUIDES[name]);
  find("#hint").textContent = HINTS[name] + (guided ? " This model did not learn it: it is guided there, less exactly." : "");
  find("#hint").hidden = !find("#hint").textContent;
  field("size").closest(".field").hidden = name === "inpaint" || name === "vary";
  const bench = find("#bench");
  bench.hidden = name === "generate";
  if (name === "sketch") showSketch(bench);
  else if (name === "layout") showLayout(bench);
  else if (name !== "generate" && !material) bench.replaceChildren(dropping("Choose a picture, or drop one anywhere", (given) => begin(mode(), given)));
  else if (name === "inpaint") showMask(bench);
  else if (name === "vary") showVary(bench);
}

function dropping(text, done) {
  const input = make("input", { type: "file", accept: "image/png,image/jpeg,image/webp", onchange: async () => {
    const given = input.files[0] && (await materialOf(input.files[0]));
    if (given) done(given);
  } });
  return make("label", { class: "drop" }, input, text);
}

function showSketch(bench) {
  if (drawing) {
    const own = button("Draw my own", () => {
      drawing = null;
      show();
    });
    const seen = picture(drawing.src, "the drawing");
    seen.className = "thumb";
    bench.replaceChildren(seen, make("div", { class: "tools" }, own));
    return;
  }
  const [width, height] = sides();
  const scale = 512 / Math.max(width, height);
  const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
  const before = benches.sketch;
  if (before?.width !== across || before?.height !== down) {
    benches.sketch = new Easel("ink", across, down);
    const moved = ([x, y]) => [(x * across) / before.width, (y * down) / before.height];
    for (const stroke of before?.strokes ?? []) benches.sketch.add({ ...stroke, points: stroke.points.map(moved) });
  }
  bench.replaceChildren(benches.sketch.element, dropping("or take a drawing from a file", (given) => begin("sketch", given)));
}

function showLayout(bench) {
  benches.layout ??= new Plan(...sides());
  benches.layout.shape(...sides());
  bench.replaceChildren(benches.layout.element);
}

function other() {
  return button("Another picture", () => {
    material = null;
    delete benches.inpaint;
    show();
  });
}

async function showMask(bench) {
  if (!benches.inpaint) {
    const image = new Image();
    image.src = material.src;
    const of = material;
    await image.decode();
    if (of !== material || mode() !== "inpaint") return;
    benches.inpaint = new Easel("mask", image.naturalWidth, image.naturalHeight, image);
  }
  bench.replaceChildren(benches.inpaint.element, make("div", { class: "tools" }, other()));
}

function showVary(bench) {
  benches.strength ??= make("input", { type: "range", id: "strength", min: "0.05", max: "1", step: "0.05", value: "0.5" });
  const seen = picture(material.src, "the picture to vary");
  seen.className = "thumb";
  bench.replaceChildren(seen, make("label", { class: "field" }, "Strength ", make("span", { class: "tools" }, benches.strength)), make("div", { class: "tools" }, other()));
}

/** The fields that every task has, as the server takes them. */
export function told() {
  const value = (name) => field(name).value.trim();
  const digits = (name) => (value(name) === "" ? null : Number(value(name)));
  return {
    model: model().name,
    prompt: value("prompt"),
    n: number(),
    seed: digits("seed"),
    steps: digits("steps"),
    guidance: digits("guidance"),
    chaos: digits("chaos"),
    style: value("style") || null,
    negative: value("negative") || null,
    revise: field("revise").checked,
  };
}

async function request() {
  const body = { ...told(), task: mode() };
  const size = field("size").value || null;
  if (body.task === "generate") {
    if (!body.prompt && model().slots.includes("text")) throw new Error("Say what to draw.");
    return { ...body, size };
  }
  if (body.task === "sketch") {
    const canvas = drawing ? null : benches.sketch.painted();
    if (!drawing && !canvas) throw new Error("Draw some lines first.");
    return { ...body, size, sketch: drawing ? await hashOf(drawing) : (await upload(canvas)).hash };
  }
  if (body.task === "layout") return { ...body, size, layout: benches.layout.told(body.prompt) };
  if (!material) throw new Error("Choose a picture first.");
  if (body.task === "vary") return { ...body, image: await hashOf(material), strength: Number(benches.strength.value), parents: material.parents ?? [] };
  const mask = benches.inpaint?.painted();
  if (!mask) throw new Error("Paint over what should be drawn anew.");
  return { ...body, image: await hashOf(material), mask: (await upload(mask)).hash, parents: material.parents ?? [] };
}

export async function draw() {
  const go = find("#draw");
  if (go.disabled) return;
  if (!form.reportValidity()) return;
  go.disabled = true;
  try {
    await send(await request());
  } catch (error) {
    note(error.message);
  } finally {
    go.disabled = false;
  }
}

/** Send a job, and let the feed know. */
export async function send(body) {
  const { id } = await ask("POST", "/api/jobs", { body });
  await drawn(id);
}
