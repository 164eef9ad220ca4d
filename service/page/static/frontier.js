// The frontier of one family: quality against latency, and where the traffic goes.

import { LETTER, colour, fillTable, html, isOpen, megabytes, milliseconds, percent, roomOf, svg } from "./dom.js";

const HEIGHT = 330, LEFT = 46, RIGHT = 16, TOP = 14, BOTTOM = 40;
const MOST_RADIUS = 44;
const PLACES = [[1, 10, 16], [1, 10, -9], [-1, -10, -9], [-1, -10, 16], [1, 10, 30], [-1, -10, 30], [1, 10, -23], [-1, -10, -23],
  [1, 10, 44], [-1, -10, 44], [1, 10, -37], [-1, -10, -37]];

export class Frontier {
  constructor(figure, table) {
    this.figure = figure;
    this.table = table;
  }

  /** Draw the axes and the points anew: another family, or other variants. */
  begin(family) {
    this.family = family;
    this.latency = Object.fromEntries(family.variants.map((variant) => [variant.name, variant.latency_ms]));
    this.span = null;
    this.update(null, {});
  }

  /** Move points, discs and arcs to what the last seconds say. */
  update(recent, latency) {
    if (!this.family) return;
    this.latency = { ...this.latency, ...latency };
    const answered = Object.values(recent?.paths ?? {}).reduce((sum, number) => sum + number, 0);
    const { share, moves } = flows(recent?.paths ?? {}, answered);
    if (this.outgrown()) this.draw();
    this.stair.setAttribute("d", this.steps());
    const bows = Object.keys(moves).map((way) => this.bow(way)).filter((bow) => bow !== null);
    const taken = [
      ...this.family.variants.map((variant) => box(this.x(this.latency[variant.name]), this.y(variant.quality), 7)),
      ...this.stairs(), ...bows.flatMap(along),
    ];
    for (const [index, variant] of this.family.variants.entries()) {
      const mark = this.marks[index];
      const x = this.x(this.latency[variant.name]), y = this.y(variant.quality);
      for (const part of mark.moving) {
        part.setAttribute("cx", x);
        part.setAttribute("cy", y);
      }
      mark.moving[0].setAttribute("r", MOST_RADIUS * Math.sqrt(share[variant.name] ?? 0));
      const portion = share[variant.name] ? ` ${percent(share[variant.name], 0)}` : "";
      if (mark.label.textContent !== variant.name + portion) mark.label.textContent = variant.name + portion;
      taken.push(this.place(mark.label, x, y, taken));
    }
    this.arcs.replaceChildren(...Object.entries(moves).map(([way, part]) => this.arc(way, part)));
    const said = this.family.variants
      .filter((variant) => share[variant.name])
      .map((variant) => `${variant.name} ${percent(share[variant.name], 0)}`);
    const text = `Quality against latency of ${this.family.variants.length} variants. Share of answers: ${said.join(", ") || "no traffic"}.`;
    if (this.picture.getAttribute("aria-label") !== text) this.picture.setAttribute("aria-label", text);
    if (isOpen(this.table)) this.tabulate(share);
  }

  /** Latencies are corrected as the machine drifts: the axis follows only when a point would leave it. */
  outgrown() {
    const values = Object.values(this.latency);
    return this.span === null || this.width !== roomOf(this.figure) || Math.min(...values) < this.span[0] || Math.max(...values) > this.span[1];
  }

  draw() {
    this.width = roomOf(this.figure);
    const values = Object.values(this.latency);
    this.span = [Math.min(...values) / 1.6, Math.max(...values) * 1.6];
    const qualities = this.family.variants.map((variant) => variant.quality);
    const room = Math.max(0.01, (Math.max(...qualities) - Math.min(...qualities)) * 0.22);
    this.range = [Math.min(...qualities) - room, Math.min(1.005, Math.max(...qualities) + room)];
    this.picture = svg("svg", { viewBox: `0 0 ${this.width} ${HEIGHT}`, role: "img" });
    for (const ms of powers(...this.span)) {
      const x = this.x(ms);
      this.picture.append(svg("line", { class: "grid", x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM }),
        svg("text", { class: "axis", x, y: HEIGHT - BOTTOM + 16, "text-anchor": "middle" }, `${ms}`));
    }
    for (const quality of ticks(...this.range)) {
      const y = this.y(quality);
      this.picture.append(svg("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }),
        svg("text", { class: "axis", x: LEFT - 6, y: y + 4, "text-anchor": "end" }, `${+(100 * quality).toFixed(1)}`));
    }
    this.picture.append(
      svg("text", { class: "axis", x: (LEFT + this.width) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, "latency of one row (ms)"),
      svg("text", { class: "axis", x: 0, y: TOP + 2, "text-anchor": "start" }, "%"),
      (this.stair = svg("path", { class: "stair" })),
    );
    this.arcs = svg("g");
    this.picture.append(this.arcs);
    const many = this.family.variants.length;
    this.marks = this.family.variants.map((variant, index) => {
      const paint = colour(index, many);
      const disc = svg("circle", { class: "disc", r: 0, fill: paint });
      const dot = svg("circle", { r: 5.5, fill: variant.on_ladder ? paint : "none", stroke: paint, "stroke-width": 2 });
      const label = svg("text", { class: "name" });
      this.picture.append(disc, dot, label);
      return { moving: [disc, dot], label };
    });
    this.figure.replaceChildren(this.picture);
  }

  /** The frontier of what is loaded, at the latencies of this moment. */
  steps() {
    const path = this.corners().map(([x, y], index) => (index ? `H${x}V${y}` : `M${x} ${y}`));
    return `${path.join("")}H${this.width - RIGHT}`;
  }

  /** Where the variants on the frontier are, from quick to accurate. */
  corners() {
    const points = this.family.variants.map((variant) => [this.latency[variant.name], variant.quality]).sort((a, b) => a[0] - b[0]);
    const found = [];
    let best = -1;
    for (const [ms, quality] of points) {
      if (quality > best) found.push([this.x(ms), this.y(quality)]);
      best = Math.max(best, quality);
    }
    return found;
  }

  /** The boxes that its lines take. */
  stairs() {
    const corners = this.corners();
    return corners.flatMap(([x, y], index) => {
      const [next, above] = corners[index + 1] ?? [this.width - RIGHT, y];
      return [{ left: x, right: next, top: y - 2, bottom: y + 2 }, { left: next - 2, right: next + 2, top: above, bottom: y }];
    });
  }

  /** Put a name where it covers least of points, lines and names already there; returns the box that it takes. */
  place(label, x, y, taken) {
    const width = LETTER * label.textContent.length;
    let best = null;
    for (const [side, dx, dy] of PLACES) {
      const left = side > 0 ? x + dx : x + dx - width;
      const found = { left, right: left + width, top: y + dy - 11, bottom: y + dy + 3 };
      const outside = Math.max(0, LEFT - left) + Math.max(0, found.right - this.width);
      const cost = 40 * outside + taken.reduce((sum, other) => sum + shared(found, other), 0);
      if (best === null || cost < best.cost) best = { cost, found, side, dx, dy };
      if (cost === 0) break;
    }
    label.setAttribute("x", x + best.dx);
    label.setAttribute("y", y + best.dy);
    label.setAttribute("text-anchor", best.side > 0 ? "start" : "end");
    return best.found;
  }

  /** The two ends of an arc, and the point between them that it bends to; null where a variant is not there. */
  bow(way) {
    const [from, to] = way.split(">").map((name) => this.family.variants.findIndex((variant) => variant.name === name));
    if (from < 0 || to < 0) return null;
    const [a, b] = [this.family.variants[from], this.family.variants[to]];
    const [x1, y1, x2, y2] = [this.x(this.latency[a.name]), this.y(a.quality), this.x(this.latency[b.name]), this.y(b.quality)];
    const bend = 0.25 * Math.hypot(x2 - x1, y2 - y1);
    return { x1, y1, x: (x1 + x2) / 2, y: (y1 + y2) / 2 + bend, x2, y2, to };
  }

  arc(way, part) {
    const bow = this.bow(way);
    if (bow === null) return svg("g");
    return svg("path", {
      class: "arc",
      d: `M${bow.x1} ${bow.y1}Q${bow.x} ${bow.y} ${bow.x2} ${bow.y2}`,
      stroke: colour(bow.to, this.family.variants.length),
      "stroke-width": 1 + 9 * part,
    });
  }

  tabulate(share) {
    fillTable(this.table, ["variant", "quality", "ms, 1 row", "memory", "share of answers"], this.family.variants.map((variant) => [
      variant.on_ladder ? variant.name : `${variant.name} (answers only who names it)`,
      variant.believed < variant.quality ? `${percent(variant.quality)}, now about ${percent(variant.believed)}` : percent(variant.quality),
      milliseconds(this.latency[variant.name]), megabytes(variant.memory_bytes), percent(share[variant.name] ?? 0),
    ]));
    for (const name of this.family.not_loaded) {
      this.table.tBodies[0].append(html("tr", {}, html("th", { scope: "row" }, name), html("td", { colspan: 4 }, this.family.refused[name] ? "refused: its files are broken" : "not loaded")));
    }
  }

  x(ms) {
    const [low, high] = this.span.map(Math.log);
    return LEFT + ((Math.log(ms) - low) / (high - low)) * (this.width - LEFT - RIGHT);
  }

  y(quality) {
    const [low, high] = this.range;
    return TOP + ((high - quality) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  }
}

const box = (x, y, half) => ({ left: x - half, right: x + half, top: y - half, bottom: y + half });

const shared = (a, b) => Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));

/** Boxes along an arc. */
function along({ x1, y1, x, y, x2, y2 }) {
  const count = Math.ceil(Math.hypot(x2 - x1, y2 - y1) / 5);
  return Array.from({ length: count }, (_, index) => {
    const t = (index + 1) / (count + 1), s = 1 - t;
    return box(s * s * x1 + 2 * s * t * x + t * t * x2, s * s * y1 + 2 * s * t * y + t * t * y2, 3);
  });
}

/** Share of answers by the variant that gave the last one, and of rows by step from one variant to the next. */
function flows(paths, answered) {
  const share = {}, moves = {};
  for (const [way, number] of Object.entries(paths)) {
    const steps = way.split(">");
    const last = steps.at(-1);
    share[last] = (share[last] ?? 0) + number / answered;
    for (let at = 1; at < steps.length; at++) {
      const move = `${steps[at - 1]}>${steps[at]}`;
      moves[move] = (moves[move] ?? 0) + number / answered;
    }
  }
  return { share, moves };
}

function powers(low, high) {
  const found = [];
  const steps = high > 8 * low ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const step of steps) {
      const value = +(step * 10 ** power).toPrecision(2);
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found;
}

export function ticks(low, high, most = 5) {
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((size) => (high - low) / size <= most) ?? 1;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) found.push(at * step);
  return found;
}
