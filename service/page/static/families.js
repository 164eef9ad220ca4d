// All families in one table: found by name, sorted by any column, however many there are.

import { count, html, megabytes, percent, say } from "./dom.js";

const COLUMNS = [
  ["family", (line) => line.name],
  ["requests/s", (line) => line.rate],
  ["in time", (line) => line.attainment ?? -1],
  ["expected right", (line) => line.expected ?? -1],
  ["loaded", (line) => line.variants.length],
  ["best", (line) => line.best],
  ["memory", (line) => line.memory_bytes],
];

export class Families {
  constructor(table, search, choose) {
    this.table = table;
    this.search = search;
    this.choose = choose;
    this.by = 0;
    this.upwards = true;
    this.lines = [];
    search.addEventListener("input", () => this.arrange());
  }

  begin(families, chosen) {
    this.chosen = chosen;
    this.lines = families.map((family) => ({ ...family, rate: 0, attainment: null, expected: null, row: this.row(family) }));
    this.heads = COLUMNS.map(([name], index) => html("th", { scope: "col" }, html("button", { type: "button", onclick: () => this.sort(index) }, name)));
    this.body = html("tbody");
    this.table.replaceChildren(html("thead", {}, html("tr", {}, ...this.heads)), this.body);
    this.arrange();
  }

  /** `shares` has requests, judged, met and expected of the window by family; a family without traffic is absent. */
  update(shares, window_s) {
    for (const line of this.lines) {
      const [requests, judged, met, expected] = shares[line.name] ?? [0, 0, 0, 0];
      line.rate = requests / window_s;
      line.attainment = judged ? met / judged : null;
      line.expected = requests ? expected / requests : null;
      const cells = line.row.cells;
      say(cells[1], line.rate ? line.rate.toFixed(1) : "0");
      say(cells[2], percent(line.attainment ?? NaN));
      say(cells[3], percent(line.expected ?? NaN));
    }
    // Rows that jump while somebody is in the table would be chosen by mistake.
    if (this.by > 0 && this.by < 4 && !this.table.matches(":hover, :focus-within")) this.arrange();
  }

  row(family) {
    const name = html("button", { type: "button", onclick: () => this.choose(family.name) }, family.name);
    const cells = ["0", "-", "-", `${family.variants.length} of ${family.of}${family.refused ? `, ${family.refused} refused` : ""}`, percent(family.best), megabytes(family.memory_bytes)];
    const row = html("tr", {}, html("th", { scope: "row" }, name), ...cells.map((text) => html("td", {}, text)));
    if (family.name === this.chosen) {
      row.classList.add("chosen");
      name.setAttribute("aria-current", "true");
    }
    return row;
  }

  sort(index) {
    this.upwards = this.by === index ? !this.upwards : index === 0;
    this.by = index;
    this.arrange();
  }

  arrange() {
    const wanted = this.search.value.trim().toLowerCase();
    const value = COLUMNS[this.by][1];
    const found = this.lines.filter((line) => line.name.toLowerCase().includes(wanted));
    found.sort((a, b) => (value(a) < value(b) ? -1 : value(a) > value(b) ? 1 : 0) * (this.upwards ? 1 : -1));
    const rows = found.map((line) => line.row);
    if (rows.length !== this.body.childElementCount || rows.some((row, index) => this.body.children[index] !== row)) this.body.replaceChildren(...rows);
    this.heads.forEach((head, index) => (index === this.by ? head.setAttribute("aria-sort", this.upwards ? "ascending" : "descending") : head.removeAttribute("aria-sort")));
    this.table.parentElement.setAttribute("aria-label", `Families, ${count(rows.length)} of ${count(this.lines.length)}`);
  }
}
