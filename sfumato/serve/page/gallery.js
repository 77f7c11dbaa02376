// Everything that was drawn, with search by prompt.

import { ask, remember } from "./api.js";
import { find, note } from "./dom.js";
import { tile } from "./feed.js";

const AT_ONCE = 40;
let next = null;
let turn = 0; // an answer to an older question is thrown away

export function start() {
  let timer = 0;
  find("#search").addEventListener("submit", (event) => {
    event.preventDefault();
    show();
  });
  find("#words").addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(show, 250);
  });
  find("#older").addEventListener("click", () => read(next));
}

/** The newest pictures with the words of the search. */
export const show = () => read(null);

async function read(before) {
  const mine = ++turn;
  try {
    const told = await ask("GET", "/api/jobs", { query: { state: "done", q: find("#words").value.trim(), limit: AT_ONCE, before } });
    if (mine !== turn) return;
    const tiles = told.jobs.flatMap((job) => remember(job).files.map((file, k) => tile(job, file, k)));
    const wall = find("#wall");
    if (before === null) wall.replaceChildren(...tiles);
    else wall.append(...tiles);
    next = told.next;
    find("#older").hidden = next === null;
    find("#wall-empty").hidden = wall.children.length > 0;
    find("#wall-empty").textContent = find("#words").value.trim() ? "No picture was asked for in these words." : "No pictures yet.";
  } catch (error) {
    note(error.message);
  }
}
