// What our mark in a PNG file says of how the picture was made, read without sending the file anywhere.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const MARK = "sfumato";

/** The mark's JSON object of a Blob; null where there is none. */
export async function settingsOf(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  if (SIGNATURE.some((byte, k) => bytes[k] !== byte)) return null;
  const view = new DataView(bytes.buffer);
  let at = 8;
  while (at + 12 <= bytes.length) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (at + 12 + length > bytes.length) return null;
    const text = textOf(kind, bytes.subarray(at + 8, at + 8 + length));
    if (text !== null) {
      try {
        const told = JSON.parse(text);
        return typeof told === "object" && !Array.isArray(told) ? told : null;
      } catch {
        return null;
      }
    }
    at += 12 + length;
  }
  return null;
}

function textOf(kind, data) {
  if (kind !== "tEXt" && kind !== "iTXt") return null;
  const end = data.indexOf(0);
  if (end < 0 || new TextDecoder("latin1").decode(data.subarray(0, end)) !== MARK) return null;
  if (kind === "tEXt") return new TextDecoder("latin1").decode(data.subarray(end + 1));
  if (data[end + 1] !== 0) return null; // compressed: we never write that
  const language = data.indexOf(0, end + 3);
  const translated = data.indexOf(0, language + 1);
  return language < 0 || translated < 0 ? null : new TextDecoder().decode(data.subarray(translated + 1));
}

/** The fields of the composer that a mark tells. */
export function fieldsOf(mark) {
  const request = mark.request && typeof mark.request === "object" ? mark.request : {};
  const own = Array.isArray(request.prompt) ? request.prompt[mark.picture ?? 0] : request.prompt;
  const [height, width] = Array.isArray(request.shape) ? request.shape : [];
  return {
    model: mark.model,
    prompt: mark.asked ?? own ?? request.class_name ?? "",
    n: request.n,
    seed: request.seed,
    steps: request.steps,
    guidance: request.guidance,
    style: request.style,
    negative: request.negative,
    size: width && height ? `${width}x${height}` : null,
  };
}
