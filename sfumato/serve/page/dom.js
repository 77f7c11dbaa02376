// Small helpers for elements. Text from outside only ever becomes text.

export const find = (selector, root = document) => root.querySelector(selector);

/** An element: attributes, "on..." listeners, `vars` for CSS properties, then children (text or elements). */
export function make(tag, about = {}, ...children) {
  const element = document.createElement(tag);
  put(element, about);
  element.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function put(element, about) {
  for (const [name, value] of Object.entries(about)) {
    if (name === "vars") for (const [key, to] of Object.entries(value)) element.style.setProperty(key, to);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
}

export function button(text, onclick, about = {}) {
  return make("button", { type: "button", onclick, ...about }, text);
}

/** A picture; small ones keep their pixels sharp. */
export function picture(src, alt) {
  const image = make("img", { src, alt, decoding: "async" });
  image.addEventListener("load", () => image.classList.toggle("coarse", Math.max(image.naturalWidth, image.naturalHeight) < 160));
  return image;
}

let last = null;

/** Tell the user something for a while; the same thing twice is told once. */
export function note(text) {
  const place = find("#notes");
  if (last?.isConnected && last.textContent === text) return;
  last = make("p", {}, text);
  place.append(last);
  const told = last;
  setTimeout(() => told.remove(), 4000 + 60 * text.length);
}

/** A number as people read it; nothing else changes. */
export function short(value, digits = 3) {
  return typeof value === "number" ? String(Number(value.toPrecision(digits))) : String(value ?? "");
}

/** Whether keys go into a text field now. */
export function typing() {
  const at = document.activeElement;
  return at && (at.matches("textarea, select, input:not([type=checkbox]):not([type=radio]):not([type=range])") || at.isContentEditable);
}
