// Elements, numbers and colours: what every part of the page needs.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element with properties or attributes and children (strings become text). */
export function html(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same in SVG. */
export function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Write a text only where it changed: a browser lays out what is written, and a screen reader may read it. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const percent = (share, digits = 1) => (Number.isFinite(share) ? `${(100 * share).toFixed(digits)} %` : "-");

export function milliseconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "-";
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${Number(value.toPrecision(value < 1 ? 2 : 3))} ms`;
}

export const megabytes = (bytes) => (bytes ? `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB` : "-");

export const count = (value) => Math.round(value).toLocaleString("en");

// From quick to accurate, each at least 3:1 against white and against the dark paper.
const RAMP = ["#c77f0a", "#c2543f", "#93559b", "#4a68c0", "#1b86a8"].map((code) =>
  [1, 3, 5].map((at) => parseInt(code.slice(at, at + 2), 16)),
);

/** The colour of a variant by its place among so many, cheapest first. */
export function colour(place, of) {
  const at = of > 1 ? (place / (of - 1)) * (RAMP.length - 1) : RAMP.length - 1;
  const low = Math.min(RAMP.length - 2, Math.floor(at));
  const mixed = RAMP[low].map((part, index) => Math.round(part + (RAMP[low + 1][index] - part) * (at - low)));
  return `rgb(${mixed.join(",")})`;
}

/** Pixels that a letter of a name takes on average. */
export const LETTER = 6.6;

/** How wide a picture may be drawn, in pixels: letters keep their size on a phone. */
export const roomOf = (figure) => Math.min(1300, Math.max(260, Math.round(figure.clientWidth || 520)));

/** A table's head and body in place of what it held. `rows` are arrays of strings, the first one the row's heading. */
export function fillTable(table, headings, rows) {
  const head = html("tr", {}, ...headings.map((text) => html("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...others]) =>
    html("tr", {}, html("th", { scope: "row" }, first), ...others.map((text) => html("td", {}, text))),
  );
  table.replaceChildren(html("thead", {}, head), html("tbody", {}, ...body));
}

/** Whether the table is worth filling: its `details` is open. */
export function isOpen(table) {
  const details = table.closest("details");
  return details === null || details.open;
}
