// A layout: boxes with words of their own, drawn on the canvas or moved by keys.

import { button, make, note } from "./dom.js";

const HUES = ["#b3261e", "#1d6fb8", "#2e7d32", "#9c5b00", "#7b3fa0", "#00796b", "#ad1457", "#455a64"];
const MOST = 64;
const LEAST = 0.02;
const GRIP = 18; // pixels from the corner that sizes a box
const within = (value, low, high) => Math.max(low, Math.min(high, value));

export class Plan {
  constructor(width, height) {
    this.boxes = [];
    this.plane = make("div", { class: "plan", role: "group", "aria-label": "Layout: drag to draw a box" });
    this.list = make("ul", { class: "boxes" });
    const tools = make("div", { class: "tools" }, button("Add a box", () => this.add([0.3, 0.3, 0.7, 0.7])), button("Clear boxes", () => this.clear()));
    this.element = make("div", {}, this.plane, this.list, tools);
    this.shape(width, height);
    this.plane.addEventListener("pointerdown", (event) => event.target === this.plane && this.draw(event));
  }

  shape(width, height) {
    Object.assign(this, { width, height });
    this.plane.style.setProperty("--shape", `${width} / ${height}`);
  }

  seen(event) {
    const box = this.plane.getBoundingClientRect();
    return [within((event.clientX - box.left) / box.width, 0, 1), within((event.clientY - box.top) / box.height, 0, 1)];
  }

  /** Follow the pointer until it is let go. */
  follow(event, move, done = () => {}) {
    event.preventDefault();
    this.plane.setPointerCapture(event.pointerId);
    const moving = (next) => move(...this.seen(next));
    const end = () => {
      this.plane.removeEventListener("pointermove", moving);
      done();
    };
    this.plane.addEventListener("pointermove", moving);
    this.plane.addEventListener("lostpointercapture", end, { once: true });
  }

  draw(event) {
    const [x, y] = this.seen(event);
    const box = this.add([x, y, x, y], false);
    if (!box) return;
    this.follow(
      event,
      (a, b) => this.set(box, [Math.min(x, a), Math.min(y, b), Math.max(x, a), Math.max(y, b)]),
      () => {
        const [x0, y0, x1, y1] = box.at;
        if (x1 - x0 < LEAST || y1 - y0 < LEAST) this.remove(box);
        else box.words.focus();
      },
    );
  }

  add(at, focus = true, text = "") {
    if (this.boxes.length >= MOST) {
      note(`${MOST} boxes are the most.`);
      return null;
    }
    const taken = this.boxes.map((box) => box.hue);
    const hue = HUES.find((one) => !taken.includes(one)) ?? HUES[this.boxes.length % HUES.length];
    const box = { at, hue };
    box.label = make("span", {});
    box.element = make("div", { class: "box", tabindex: "0", role: "application", vars: { "--hue": hue } }, box.label, make("i", {}));
    box.words = make("input", { class: "words", placeholder: "what stands here", "aria-label": "Words of the box", maxlength: "400", value: text,
      oninput: () => this.named(box) });
    box.row = make("li", { vars: { "--hue": hue } }, make("i", {}), box.words, button("×", () => this.remove(box), { "aria-label": "Remove the box", class: "quiet" }));
    box.element.addEventListener("pointerdown", (event) => this.move(box, event));
    box.element.addEventListener("keydown", (event) => this.key(box, event));
    this.boxes.push(box);
    this.plane.append(box.element);
    this.list.append(box.row);
    this.set(box, at);
    this.named(box);
    if (focus) box.words.focus();
    return box;
  }

  named(box) {
    box.label.textContent = box.words.value;
    box.element.setAttribute("aria-label", `Box ${box.words.value || "without words"}: arrow keys move it, with shift its size`);
  }

  move(box, event) {
    const [x, y] = this.seen(event);
    const [x0, y0, x1, y1] = box.at;
    const plane = this.plane.getBoundingClientRect();
    const corner = (x1 - x) * plane.width < GRIP && (y1 - y) * plane.height < GRIP;
    if (corner) this.follow(event, (a, b) => this.set(box, [x0, y0, Math.max(x0 + LEAST, a), Math.max(y0 + LEAST, b)]));
    else this.follow(event, (a, b) => this.shift(box, [x0, y0, x1, y1], a - x, b - y));
    box.element.focus();
  }

  shift(box, [x0, y0, x1, y1], dx, dy) {
    const x = within(dx, -x0, 1 - x1);
    const y = within(dy, -y0, 1 - y1);
    this.set(box, [x0 + x, y0 + y, x1 + x, y1 + y]);
  }

  key(box, event) {
    const ways = { ArrowLeft: [-LEAST, 0], ArrowRight: [LEAST, 0], ArrowUp: [0, -LEAST], ArrowDown: [0, LEAST] };
    const [x0, y0, x1, y1] = box.at;
    if (event.key === "Delete" || event.key === "Backspace") this.remove(box);
    else if (!ways[event.key]) return;
    else if (event.shiftKey) {
      const [dx, dy] = ways[event.key];
      this.set(box, [x0, y0, within(x1 + dx, x0 + LEAST, 1), within(y1 + dy, y0 + LEAST, 1)]);
    } else this.shift(box, box.at, ...ways[event.key]);
    event.preventDefault();
    event.stopPropagation();
  }

  set(box, at) {
    box.at = at;
    const [x0, y0, x1, y1] = at.map((value) => 100 * value);
    Object.assign(box.element.style, { left: `${x0}%`, top: `${y0}%`, width: `${x1 - x0}%`, height: `${y1 - y0}%` });
  }

  remove(box) {
    this.boxes = this.boxes.filter((one) => one !== box);
    box.element.remove();
    box.row.remove();
  }

  clear() {
    for (const box of [...this.boxes]) this.remove(box);
  }

  /** The layout as the server takes it; throws an Error that says what is missing. */
  told(background) {
    if (!this.boxes.length) throw new Error("Draw at least one box.");
    const empty = this.boxes.find((box) => !box.words.value.trim());
    if (empty) {
      empty.words.focus();
      throw new Error("Say in words what stands in every box.");
    }
    const boxes = this.boxes.map((box) => ({ box: box.at.map((value) => Number(within(value, 0, 1).toFixed(4))), text: box.words.value.trim() }));
    return { width: this.width, height: this.height, background, boxes };
  }

  /** Put the boxes of a layout back. */
  recall(layout) {
    this.clear();
    for (const { box, text } of layout.boxes ?? []) {
      const large = Math.max(...box) > 1;
      const sides = large ? [layout.width, layout.height, layout.width, layout.height] : [1, 1, 1, 1];
      this.add(box.map((value, k) => value / sides[k]), false, text);
    }
  }
}
