// A small line chart.

import { make, short } from "./dom.js";

const [WIDTH, HEIGHT, LEFT, BOTTOM] = [320, 160, 44, 20];

function draw(tag, about, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(about)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** lines: [{name, points: [[x, y], ...]}], one or two of them; null when there is nothing to show. */
export function chart(title, lines, across) {
  const given = lines.map((line) => ({ ...line, points: line.points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y)) })).filter((line) => line.points.length > 1);
  if (!given.length) return null;
  const xs = given.flatMap((line) => line.points.map(([x]) => x));
  const ys = given.flatMap((line) => line.points.map(([, y]) => y));
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const at = ([x, y]) => [
    LEFT + ((x - x0) / (x1 - x0 || 1)) * (WIDTH - LEFT - 6),
    HEIGHT - BOTTOM - ((y - y0) / (y1 - y0 || 1)) * (HEIGHT - BOTTOM - 12),
  ];
  const last = given.map((line) => `${line.name} ${short(line.points.at(-1)[1])}`).join(", ");
  const picture = draw("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: now ${last}` });
  picture.append(draw("line", { class: "axis", x1: LEFT, y1: HEIGHT - BOTTOM, x2: WIDTH, y2: HEIGHT - BOTTOM }));
  for (const y of y1 > y0 ? [y0, y1] : [y0]) picture.append(draw("text", { x: LEFT - 5, y: at([x0, y])[1] + 4, "text-anchor": "end" }, short(y)));
  picture.append(draw("text", { x: LEFT, y: HEIGHT - 5 }, short(x0)));
  picture.append(draw("text", { x: WIDTH - 6, y: HEIGHT - 5, "text-anchor": "end" }, `${short(x1)} ${across}`));
  given.forEach((line, k) => picture.append(draw("polyline", { class: k ? "b" : "a", points: line.points.map((p) => at(p).map((v) => v.toFixed(1)).join(",")).join(" ") })));
  const key = given.map((line, k) => [make("b", { class: k ? "b" : "a" }, line.name), ` ${short(line.points.at(-1)[1])} `]).flat();
  return make("figure", {}, make("h3", {}, title), picture, make("p", { class: "soft key" }, ...key));
}
