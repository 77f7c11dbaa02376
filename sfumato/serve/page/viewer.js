// One picture, large: how it was made, what from, what of it, and what can be done with it.

import { fileAddress, jobOf, known } from "./api.js";
import { begin, model, number, recall, send, stored, told } from "./compose.js";
import { button, find, make, note, picture, short } from "./dom.js";
import { TASKS, again, titleOf } from "./feed.js";

const dialog = find("#viewer");
let shown = null; // {job, k}

/** Show picture k of a job. */
export async function look(id, k) {
  let job;
  try {
    job = await jobOf(id); // its children may be others by now
  } catch (error) {
    note(error.message);
    return;
  }
  const file = job.files[k];
  if (!file) return;
  shown = { job, k };
  const words = job.result.captions?.[k] || job.prompt;
  const seen = picture(fileAddress(file.hash), words || titleOf(job));
  dialog.replaceChildren(make("div", { class: "seen" }, seen, make("div", {}, ...beside(job, file, k, words))));
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("button")?.focus();
  const line = dialog.querySelector("[data-line]");
  await lineage(job, line);
}

export function close() {
  if (dialog.open) dialog.close();
}

function beside(job, file, k, words) {
  const { result, request } = job;
  const facts = [
    ["Made", `${TASKS[job.task]}${result.by === "guide" ? ", guided" : ""}`],
    ["Model", job.model],
    ["Style", result.style],
    ["Size", `${file.width} × ${file.height}`],
    ["Seed", `${result.seed}, picture ${k + 1}`],
    ["Steps", result.steps],
    ["Guidance", short(result.guidance)],
    ["Left out", request.negative],
    ["Strength", request.strength],
    ["Took", `${result.seconds.toFixed(1)} s, ${result.network_calls} calls`],
  ].filter(([, value]) => value !== null && value !== undefined && value !== "");
  return [
    make("h2", {}, words || titleOf(job)),
    job.prompt && words !== job.prompt && make("p", { class: "soft" }, `asked: ${job.prompt}`),
    ...(result.reasons ?? []).concat(result.warnings ?? []).map((text) => make("p", { class: "soft" }, text)),
    make("div", { class: "actions" }, ...actions(job, file)),
    make("dl", {}, facts.map(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value))])),
    make("div", { "data-line": "" }),
    make("form", { method: "dialog", class: "tools" }, make("button", {}, "Close")),
  ];
}

function actions(job, file) {
  return [
    button("Vary a little", () => vary(0.35), { title: "V" }),
    button("Vary much", () => vary(0.7)),
    button("Upscale ×2", () => edit("upscale", { scale: 2, n: 1 }), { title: "U" }),
    button("Upscale ×4", () => edit("upscale", { scale: 4, n: 1 })),
    button("Zoom out", () => edit("outpaint", { zoom: 1.5 }), { title: "Z" }),
    button("Fill", fill, { title: "F" }),
    button("Recall settings", () => {
      close();
      again(job, true);
    }),
    make("a", { class: "button", href: fileAddress(file.hash), download: `sfumato-${file.hash.slice(0, 8)}.png`, title: "S" }, "Save"),
  ];
}

const vary = (strength) => edit("vary", { strength });

/** A job of this picture, with the model and the number of pictures of the form, and the words of the picture. */
async function edit(task, more) {
  const { job, k } = shown;
  const { steps, guidance } = told();
  const base = { model: model().name, prompt: model().slots.includes("text") ? job.prompt : "", style: model().styles.includes(job.request.style) ? job.request.style : null };
  try {
    await send({ ...base, steps, guidance, n: number(), ...more, task, image: job.files[k].hash, parents: [job.id] });
    close();
    location.hash = "make";
  } catch (error) {
    note(error.message);
  }
}

function fill() {
  const { job, k } = shown;
  close();
  recall({ prompt: job.prompt }, false);
  location.hash = "make";
  begin("inpaint", stored(job.files[k].hash, [job.id]));
}

/** What a picture was made from, and what was made from it. */
async function lineage(job, place) {
  const jobs = async (names) => (await Promise.all(names.map((name) => known.get(name) ?? jobOf(name).catch(() => null)))).filter(Boolean);
  const hashes = job.parents.filter((name) => name.length === 64);
  const makers = await jobs(job.parents.filter((name) => name.length !== 64));
  const children = (await jobs(job.children)).filter((one) => one.files.length);
  const from = hashes.map((hash) => {
    const maker = [...makers, ...known.values()].find((one) => one.files.some((file) => file.hash === hash));
    const at = maker?.files.findIndex((file) => file.hash === hash);
    const seen = picture(fileAddress(hash), maker ? `made from: ${titleOf(maker)}` : "given");
    return maker ? make("button", { class: "tile", type: "button", onclick: () => look(maker.id, at) }, seen) : make("div", { class: "tile" }, seen);
  });
  const of = children.map((one) => {
    const seen = picture(fileAddress(one.files[0].hash), `${TASKS[one.task]}: ${titleOf(one)}`);
    return make("button", { class: "tile", type: "button", onclick: () => look(one.id, 0) }, seen);
  });
  if (!place.isConnected) return;
  if (from.length) place.append(make("h3", {}, "Made from"), make("div", { class: "line", "data-from": "" }, from));
  if (of.length) place.append(make("h3", {}, "Made of it"), make("div", { class: "line", "data-of": "" }, of));
}

/** The picture `by` places further, over all jobs that are known. */
function turn(by) {
  const all = [...known.values()].sort((a, b) => b.number - a.number).flatMap((job) => job.files.map((_, k) => [job.id, k]));
  const at = all.findIndex(([id, k]) => id === shown.job.id && k === shown.k);
  const next = all[at + by];
  if (at >= 0 && next) look(...next);
}

dialog.addEventListener("click", (event) => event.target === dialog && close());
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const does = {
    ArrowLeft: () => turn(-1),
    ArrowRight: () => turn(1),
    v: () => vary(0.35),
    u: () => edit("upscale", { scale: 2, n: 1 }),
    z: () => edit("outpaint", { zoom: 1.5 }),
    f: fill,
    s: () => dialog.querySelector("a[download]").click(),
  }[event.key];
  if (!does) return;
  event.preventDefault();
  does();
});
