// A canvas to paint on: lines of a sketch on white paper, or the part of a picture that is to be filled.

import { button, make } from "./dom.js";

export class Easel {
  /** kind: "ink" or "mask"; ground: what lies under it (null: white paper). */
  constructor(kind, width, height, ground = null) {
    Object.assign(this, { kind, width, height, strokes: [], erasing: false });
    const side = Math.min(width, height);
    this.size = Math.max(1, Math.round(side * (kind === "ink" ? 0.03 : 0.15)));
    this.at = [Math.round(width / 2), Math.round(height / 2)];
    const what = kind === "ink" ? "Sketch: draw dark lines" : "Mask: paint what should be drawn anew";
    this.under = make("canvas", { width, height, "aria-hidden": "true" });
    this.over = make("canvas", { width, height, tabindex: "0", role: "application", "aria-label": `${what}. Arrow keys move the brush, space paints.` });
    const context = this.under.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    if (ground) context.drawImage(ground, 0, 0, width, height);
    this.dot = make("span", { class: "dot" });
    this.place = make("div", { class: `easel ${kind}` }, this.under, this.over, this.dot);
    this.element = make("div", {}, this.place, this.tools());
    this.listen();
    this.point();
  }

  tools() {
    this.eraser = button("Erase", () => this.erase(!this.erasing), { "aria-pressed": "false" });
    const largest = Math.max(4, Math.round(Math.min(this.width, this.height) / 2));
    this.slider = make("input", { type: "range", min: "1", max: String(largest), value: String(this.size), "aria-label": "Brush size",
      oninput: () => this.resize(Number(this.slider.value)) });
    const invert = this.kind === "mask" && button("Invert", () => this.add({ invert: true }));
    return make("div", { class: "tools" }, this.eraser, this.slider, button("Undo", () => this.undo()), invert, button("Clear canvas", () => this.clear()));
  }

  erase(on) {
    this.erasing = on;
    this.eraser.setAttribute("aria-pressed", String(on));
  }

  resize(size) {
    this.size = Math.max(1, Math.min(Number(this.slider.max), size));
    this.slider.value = String(this.size);
    this.point();
  }

  listen() {
    const seen = (event) => {
      const box = this.over.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * this.width, ((event.clientY - box.top) / box.height) * this.height];
    };
    this.over.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      this.over.setPointerCapture(event.pointerId);
      this.add({ points: [seen(event)], size: this.size, erase: this.erasing });
      this.drawing = true;
    });
    this.over.addEventListener("pointermove", (event) => {
      if (!this.drawing) return;
      for (const one of event.getCoalescedEvents?.() ?? [event]) this.strokes.at(-1).points.push(seen(one));
      this.redraw();
    });
    for (const name of ["pointerup", "pointercancel"]) this.over.addEventListener(name, () => (this.drawing = false));
    this.over.addEventListener("keydown", (event) => this.key(event));
    this.over.addEventListener("keyup", (event) => event.key === " " && (this.held = false));
  }

  key(event) {
    const far = Math.max(1, Math.round(Math.min(this.width, this.height) / 64)) * (event.shiftKey ? 10 : 1);
    const ways = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    if (ways[event.key]) {
      this.at = [0, 1].map((k) => Math.max(0, Math.min([this.width, this.height][k], this.at[k] + ways[event.key][k])));
      if (this.held) {
        this.strokes.at(-1).points.push([...this.at]);
        this.redraw();
      }
      this.point();
    } else if (event.key === " " && !this.held) {
      this.held = true;
      this.add({ points: [[...this.at]], size: this.size, erase: this.erasing });
    } else if (event.key === "[" || event.key === "]") this.resize(this.size + (event.key === "[" ? -1 : 1));
    else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
    else if (event.key !== " ") return;
    event.preventDefault();
    event.stopPropagation();
  }

  point() {
    this.dot.style.left = `${(100 * this.at[0]) / this.width}%`;
    this.dot.style.top = `${(100 * this.at[1]) / this.height}%`;
    this.dot.style.width = `${(100 * this.size) / this.width}%`;
    this.dot.style.height = `${(100 * this.size) / this.height}%`;
  }

  add(stroke) {
    this.strokes.push(stroke);
    this.redraw();
  }

  undo() {
    this.strokes.pop();
    this.redraw();
  }

  clear() {
    this.strokes = [];
    this.redraw();
  }

  redraw() {
    const context = this.over.getContext("2d");
    context.globalCompositeOperation = "source-over";
    context.clearRect(0, 0, this.width, this.height);
    const colour = this.kind === "ink" ? "#111" : "#d63b1f";
    Object.assign(context, { lineCap: "round", lineJoin: "round", strokeStyle: colour, fillStyle: colour });
    for (const stroke of this.strokes) {
      if (stroke.invert) {
        context.globalCompositeOperation = "xor";
        context.fillRect(0, 0, this.width, this.height);
        continue;
      }
      context.globalCompositeOperation = stroke.erase ? "destination-out" : "source-over";
      context.lineWidth = stroke.size;
      context.beginPath();
      context.moveTo(...stroke.points[0]);
      for (const point of stroke.points) context.lineTo(...point);
      context.stroke();
    }
  }

  /** What was painted, as the server takes it: a mask white where filled, a sketch black on white; null: nothing. */
  painted() {
    const marks = this.over.getContext("2d").getImageData(0, 0, this.width, this.height);
    let any = false;
    for (let at = 0; at < marks.data.length; at += 4) {
      const on = marks.data[at + 3] > 127;
      any ||= on;
      marks.data.fill(on === (this.kind === "mask") ? 255 : 0, at, at + 3);
      marks.data[at + 3] = 255;
    }
    if (!any) return null;
    const canvas = make("canvas", { width: this.width, height: this.height });
    canvas.getContext("2d").putImageData(marks, 0, 0);
    return canvas;
  }
}
