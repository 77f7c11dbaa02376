// The server's interface, the same one that every client may call.

export const ENDED = ["done", "failed", "cancelled"];
export const known = new Map(); // jobs by id, as last heard

export function address(path, about = {}) {
  let given = path.replace("{name}", () => encodeURIComponent(about.name));
  const query = new URLSearchParams(Object.entries(about.query ?? {}).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  if (query.size) given += `?${query}`;
  return given;
}

/** One request; throws an Error that says what the server said. */
export async function ask(method, path, about = {}) {
  const request = { method, headers: { "x-sfumato-client": "studio" } };
  if (about.file) {
    request.body = new FormData();
    request.body.append("file", about.file, "picture");
  } else if (about.body) {
    request.headers["content-type"] = "application/json";
    request.body = JSON.stringify(about.body);
  }
  let answer;
  try {
    answer = await fetch(address(path, about), request);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) {
    const more = told.error?.moderation_details;
    const why = more?.word ? ` (rule "${more.rule}", "${more.word}")` : "";
    throw new Error((told.error?.message ?? `The server answered ${answer.status}.`) + (told.error?.message?.includes(more?.word) ? "" : why));
  }
  return told;
}

export const fileAddress = (hash) => address("/api/files/{name}", { name: hash });

export function remember(job) {
  known.set(job.id, job);
  return job;
}

export async function jobOf(name) {
  return remember(await ask("GET", "/api/jobs/{name}", { name }));
}

/** {hash, width, height, settings} of a File, Blob or canvas. */
export async function upload(thing) {
  const file = thing instanceof HTMLCanvasElement ? await new Promise((done) => thing.toBlob(done, "image/png")) : thing;
  return ask("POST", "/api/uploads", { file });
}

// Browsers open six connections to a server, for all of their windows: only a few may hang on a stream.
const STREAMS = 2;
const waiting = new Map(); // id -> who hears
const streams = new Map();

/** Hear how a job goes: hear(event, data) until it has ended. */
export function watch(id, hear) {
  waiting.set(id, hear);
  pump();
}

export function unwatch(id) {
  waiting.delete(id);
  streams.get(id)?.close();
  streams.delete(id);
  pump();
}

function pump() {
  if (document.hidden) {
    for (const stream of streams.values()) stream.close();
    streams.clear();
    return;
  }
  for (const [id, hear] of waiting) {
    if (streams.size >= STREAMS) return;
    if (!streams.has(id)) open(id, hear);
  }
}

function open(id, hear) {
  const stream = new EventSource(address("/api/jobs/{name}/events", { name: id }));
  streams.set(id, stream);
  for (const name of ["queued", "step", ...ENDED]) {
    stream.addEventListener(name, (event) => {
      const data = JSON.parse(event.data);
      if (ENDED.includes(name)) unwatch(id);
      hear(name, data);
    });
  }
}

document.addEventListener("visibilitychange", pump);
