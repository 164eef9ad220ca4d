// Two minutes, second by second: who answered, what share in time, what waited.

import { LETTER, byId, colour, count, fillTable, html, isOpen, percent, roomOf, say, svg } from "./dom.js";

const LEFT = 38, RIGHT = 8, TOP = 18, BOTTOM = 18;
const FARTHER = [0, 13, 26, 39, 52]; // pixels that a name may be away from the end of its line, beyond what it needs
const REFUSED = "refused";

/** Draw all three pictures, the legend and, where it is open, the table. */
export function drawSeries(state) {
  const { welcome, tick } = state;
  const now = tick?.now ?? welcome.now;
  const span = welcome.history_s;
  const at = Array.from({ length: span }, (_, index) => now - span + index);
  const seconds = at.map((second) => state.seconds.get(second) ?? null);
  const variants = welcome.family?.variants.map((variant) => variant.name) ?? [];
  mix(seconds, variants);
  const share = (part, whole) => (whole ? part / whole : null);
  lines(byId("shares"), "In time, and expected to be right in time, of each second", 150, 1, (value) => `${Math.round(value * 100)}`, [
    { name: "in time", paint: "var(--on)", values: smooth(seconds, (second) => [second[3], second[2]], share) },
    { name: "right", paint: "var(--good)", dashed: true, values: smooth(seconds, (second) => [second[5], second[1]], share) },
  ]);
  const load = at.map((second) => state.load.get(second) ?? null);
  const most = Math.max(4, ...load.map((line) => line?.[1] ?? 0));
  lines(byId("queue"), "Rows that waited at most, and share of the slots that was busy", 130, most, (value) => count(value), [
    { name: "busy (full height: all)", paint: "var(--dominated)", filled: true, values: load.map((line) => (line?.[2] ?? 0) * most) },
    { name: "rows waiting", paint: "var(--on)", values: load.map((line) => line?.[1] ?? 0) },
  ]);
  const table = byId("seconds");
  if (isOpen(table)) {
    const rows = at.map((second, index) => [second, seconds[index], load[index]]).filter(([, found]) => found).reverse();
    fillTable(table, ["seconds ago", "requests", "in time", "expected right", "refused", "rows waiting", ...variants], rows.map(([second, found, line]) => [
      String(now - second), count(found[1]), percent(share(found[3], found[2]) ?? NaN), percent(share(found[5], found[1]) ?? NaN), count(found[4]), count(line?.[1] ?? 0),
      ...variants.map((name) => count(found[6][name] ?? 0)),
    ]));
  }
}

function mix(seconds, variants) {
  const bands = [...variants, "mixed", REFUSED];
  const of = (second, name) => (second === null ? 0 : name === REFUSED ? second[4] : second[6][name] ?? 0);
  const used = bands.filter((name) => variants.includes(name) || seconds.some((second) => of(second, name)));
  const most = Math.max(5, ...seconds.map((second) => used.reduce((sum, name) => sum + of(second, name), 0)));
  const picture = frame(byId("mix"), 300, most, (value) => count(value), describe(seconds, used, of));
  let below = seconds.map(() => 0);
  for (const name of used) {
    const above = below.map((low, index) => low + of(seconds[index], name));
    picture.plot.append(svg("path", { d: band(picture, below, above), fill: paintOf(name, variants) }));
    below = above;
  }
  if (!seconds.some((second) => second !== null)) sayNothing(picture);
  legend(seconds, used, variants, of);
}

function paintOf(name, variants) {
  return variants.includes(name) ? colour(variants.indexOf(name), variants.length) : name === REFUSED ? "var(--bad)" : "var(--dominated)";
}

function legend(seconds, used, variants, of) {
  const list = byId("legend");
  if (list.dataset.names !== used.join()) {
    list.dataset.names = used.join();
    list.replaceChildren(...used.map((name) => {
      const swatch = html("span", { class: "swatch", "aria-hidden": "true" });
      swatch.style.background = paintOf(name, variants);
      return html("li", {}, swatch, html("span"));
    }));
  }
  const total = seconds.reduce((sum, second) => sum + used.reduce((own, name) => own + of(second, name), 0), 0);
  used.forEach((name, index) => {
    const own = seconds.reduce((sum, second) => sum + of(second, name), 0);
    say(list.children[index].lastElementChild, `${name} ${percent(total ? own / total : 0, 0)}`);
  });
}

function describe(seconds, used, of) {
  const last = seconds.findLast((second) => second !== null);
  return last ? `In the last second with traffic: ${used.map((name) => `${name} ${of(last, name)}`).join(", ")}.` : "No traffic in the last two minutes.";
}

/** Shares over five seconds each: single ones jump. Null where nothing ended. */
function smooth(seconds, parts, share) {
  return seconds.map((_, index) => {
    let part = 0, whole = 0;
    for (const second of seconds.slice(Math.max(0, index - 4), index + 1)) {
      if (second === null) continue;
      const [own, all] = parts(second);
      part += own;
      whole += all;
    }
    return seconds[index] === null ? null : share(part, whole);
  });
}

/** Lines over the same seconds on one scale from 0 to `most`. */
export function lines(figure, label, height, most, written, series, ends = ["2 min ago", "now"]) {
  const said = series.map(({ name, values }) => [name, values.findLast((value) => value !== null)]).filter(([, value]) => value !== undefined);
  const picture = frame(figure, height, most, written, `${label}. Last: ${said.map(([name, value]) => `${name} ${written(value)}`).join(", ")}.`, ends);
  const taken = [], names = [];
  const drawn = series.filter(({ filled }) => !filled).flatMap(({ values }) => segments(picture, values));
  if (said.length === 0) sayNothing(picture);
  for (const { name, values, paint, filled, dashed } of series) {
    if (filled) picture.plot.append(svg("path", { d: band(picture, values.map(() => 0), values.map((value) => value ?? 0)), fill: paint, opacity: 0.3 }));
    else picture.plot.append(svg("path", { d: line(picture, values), fill: "none", stroke: paint, "stroke-width": 2, "stroke-dasharray": dashed ? "5 3" : "none" }));
    const last = values.findLastIndex((value) => value !== null);
    if (last < 0 || filled) continue;
    const y = place(picture, name, picture.y(values[last]), dashed, drawn, taken);
    taken.push(y);
    names.push(svg("text", { class: "name", x: picture.width - RIGHT, y, "text-anchor": "end" }, name));
  }
  // Above all lines, also those that are drawn later.
  picture.plot.append(...names);
}

/** Where a name covers least of lines and of names already there, as near as can be to the end of its line. */
function place({ width, height }, name, end, below, drawn, taken) {
  const left = width - RIGHT - LETTER * name.length;
  const sides = below ? [1, -1] : [-1, 1];
  const places = FARTHER.flatMap((more) => sides.map((side) => end + (side > 0 ? 14 + more : -5 - more)));
  let best = null;
  for (const y of places.filter((y) => y >= 11 && y <= height - BOTTOM - 3)) {
    const covered = drawn.filter((part) => part.right >= left && part.top <= y + 4 && part.bottom >= y - 10).length;
    const cost = covered + 1000 * taken.filter((other) => Math.abs(other - y) < 13).length;
    if (best === null || cost < best.cost) best = { cost, y };
    if (cost === 0) break;
  }
  return best?.y ?? end;
}

/** The parts of a line from second to second: how far right, and between which heights. */
function segments({ x, y }, values) {
  const found = [];
  for (let at = 1; at < values.length; at++) {
    if (values[at - 1] === null || values[at] === null) continue;
    const heights = [y(values[at - 1]), y(values[at])];
    found.push({ right: x(at, values.length), top: Math.min(...heights), bottom: Math.max(...heights) });
  }
  return found;
}

function frame(figure, height, most, written, label, ends = ["2 min ago", "now"]) {
  const width = roomOf(figure);
  const y = (value) => TOP + (1 - value / most) * (height - TOP - BOTTOM);
  const x = (index, of) => LEFT + (index / Math.max(1, of - 1)) * (width - LEFT - RIGHT);
  let picture = figure.firstElementChild;
  if (picture === null) {
    picture = svg("svg", { role: "img" });
    figure.append(picture);
  }
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  if (picture.getAttribute("aria-label") !== label) picture.setAttribute("aria-label", label);
  const plot = svg("g");
  for (const part of [0, 0.5, 1]) {
    plot.append(svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(part * most), y2: y(part * most) }),
      svg("text", { class: "axis", x: LEFT - 5, y: y(part * most) + 4, "text-anchor": "end" }, written(part * most)));
  }
  plot.append(svg("text", { class: "axis", x: LEFT, y: height - 3 }, ends[0]), svg("text", { class: "axis", x: width - RIGHT, y: height - 3, "text-anchor": "end" }, ends[1]));
  picture.replaceChildren(plot);
  return { plot, x, y, width, height };
}

/** A picture without anything in it says why. */
function sayNothing({ plot, width, height }) {
  plot.append(svg("text", { class: "axis", x: (LEFT + width - RIGHT) / 2, y: TOP + (height - TOP - BOTTOM) * 0.4, "text-anchor": "middle" }, "no requests in this time"));
}

function line({ x, y }, values) {
  let path = "", pen = false;
  values.forEach((value, index) => {
    if (value !== null) path += `${pen ? "L" : "M"}${x(index, values.length).toFixed(1)} ${y(value).toFixed(1)}`;
    pen = value !== null;
  });
  return path;
}

function band({ x, y }, below, above) {
  const of = above.length;
  const up = above.map((value, index) => `${x(index, of).toFixed(1)} ${y(value).toFixed(1)}`);
  const back = below.map((value, index) => `${x(index, of).toFixed(1)} ${y(value).toFixed(1)}`).reverse();
  return `M${[...up, ...back].join("L")}Z`;
}
