// Ask the gateway as any client would, and say which variant answered, how sure it is, how long it took and why.

import { ask } from "./ask.js";
import { byId, html, milliseconds, percent, say } from "./dom.js";

const LEAST_MS = 1, MOST_MS = 1000;
const PAUSE_MS = 200; // while the limit is dragged: at most five requests a second, one at a time
const KEPT = 6;

export class Try {
  constructor() {
    this.asking = false;
    this.again = false;
    this.asked = -PAUSE_MS;
    this.slo = byId("slo");
    this.slo.addEventListener("input", () => this.dragged());
    byId("try").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    byId("sample").addEventListener("change", () => this.chosen());
    byId("text").addEventListener("input", () => (byId("sample").value = ""));
  }

  begin(family, words) {
    this.words = words;
    if (this.family?.name === family.name && this.family.revision === family.revision) return;
    this.family = family;
    this.rows = [];
    this.isText = family.input.datatype === "BYTES";
    byId("try-text").hidden = !this.isText;
    byId("tries").replaceChildren();
    byId("pixels").hidden = true;
    this.slo.value = String(Math.round(place(family.slo_ms)));
    this.sayLimit();
    this.kept = undefined;
    byId("sample").parentElement.hidden = !family.samples;
    byId("ask").disabled = !family.samples && !this.isText;
    if (byId("ask").disabled) byId("answer").replaceChildren(html("p", { class: "soft" }, "Samples are not shown here."));
    this.load(family);
  }

  async load(family) {
    const select = byId("sample");
    select.replaceChildren(html("option", { value: "" }, "none"));
    if (!family.samples) return;
    const answer = await ask(`page/samples?family=${encodeURIComponent(family.name)}`);
    if (!answer.ok || this.family !== family) return;
    this.rows = (await answer.json()).rows;
    const options = this.rows.map((row, index) => html("option", { value: String(index) }, row.text ? `${row.label}: ${row.text.slice(0, 60)}` : `sample ${index + 1}: ${row.label}`));
    if (this.isText) select.append(...options);
    else {
      select.replaceChildren(...options);
      this.chosen();
    }
  }

  get limit_ms() {
    return LEAST_MS * (MOST_MS / LEAST_MS) ** (this.slo.value / 100);
  }

  sayLimit() {
    const text = milliseconds(this.limit_ms);
    say(byId("slo-said"), text);
    this.slo.setAttribute("aria-valuetext", text);
  }

  chosen() {
    const row = this.rows[byId("sample").value];
    if (row?.text !== undefined) byId("text").value = row.text;
    const canvas = byId("pixels");
    canvas.hidden = row?.pixels === undefined;
    if (row?.pixels) paint(canvas, row);
  }

  dragged() {
    this.sayLimit();
    if (byId("dragging").checked) this.soon();
  }

  /** Ask when the pause since the last time is over, with what holds then. */
  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.ask(), Math.max(0, this.asked + PAUSE_MS - performance.now()));
  }

  async ask() {
    if (!this.family || byId("ask").disabled) return;
    if (this.asking) {
      this.again = true;
      return;
    }
    this.asking = true;
    this.again = false;
    this.asked = performance.now();
    const limit_ms = this.limit_ms;
    try {
      const { headers, body, truth } = await this.request();
      const started = performance.now();
      const answer = await ask(`v2/models/${encodeURIComponent(this.family.name)}/infer`, { method: "POST", body, headers: { ...headers, "x-slo-latency-ms": limit_ms.toFixed(3) } });
      const said = await answer.json();
      this.show(answer, said, limit_ms, performance.now() - started, truth);
    } catch (error) {
      byId("answer").replaceChildren(html("p", { class: "no" }, `The gateway cannot be reached (${error.message}).`));
    } finally {
      this.asking = false;
      if (this.again) this.soon();
    }
  }

  /** The body: the sentence as JSON, or the sample's own bytes as the gateway hands them out. */
  async request() {
    const chosen = byId("sample").value;
    const truth = this.rows[chosen]?.label;
    if (this.isText) {
      const inputs = [{ name: this.family.input.name, shape: [1], datatype: "BYTES", data: [byId("text").value] }];
      return { headers: { "content-type": "application/json" }, body: JSON.stringify({ inputs }), truth };
    }
    const key = `${this.family.name} ${chosen}`;
    if (this.kept?.key !== key) {
      const answer = await ask(`page/sample?family=${encodeURIComponent(this.family.name)}&row=${chosen || 0}`);
      if (!answer.ok) throw new Error((await answer.json()).error);
      const headers = { "content-type": "application/octet-stream", "inference-header-content-length": answer.headers.get("inference-header-content-length") };
      this.kept = { key, headers, body: await answer.arrayBuffer() };
    }
    return { ...this.kept, truth };
  }

  show(answer, said, limit_ms, trip_ms, truth) {
    const lines = answer.ok ? this.answered(said, answer.headers, truth, trip_ms) : this.refused(said, answer);
    byId("answer").replaceChildren(...lines);
    const short = answer.ok ? `${said.parameters.route_path.replaceAll(",", " → ")}` : `refused (${answer.status})`;
    const list = byId("tries");
    list.prepend(html("li", {}, `${milliseconds(limit_ms)}: ${short}`));
    while (list.childElementCount > KEPT) list.lastElementChild.remove();
  }

  answered(said, headers, truth, trip_ms) {
    const output = Object.fromEntries(said.outputs.map((tensor) => [tensor.name, tensor.data[0]]));
    const { variant, route_reason, route_path, slo_met, escalation, first_confidence } = said.parameters;
    const total = /total;dur=([\d.]+)/.exec(headers.get("server-timing") ?? "");
    const right = truth === undefined ? null : html("span", { class: truth === output.label ? "yes" : "no" }, truth === output.label ? ", which is right" : `, though it is ${truth}`);
    const sure = escalation === "none" ? "" : escalation === "escalated" ? ` The first answer was ${percent(first_confidence, 0)} sure.` : ` ${this.words.escalations[escalation]} (first answer ${percent(first_confidence, 0)} sure).`;
    return [
      html("p", { class: "big" }, `${output.label}`, output.confidence === undefined ? "" : `, ${percent(output.confidence, 0)} sure`, right),
      html("p", {}, html("b", {}, route_path.includes(",") ? route_path.replaceAll(",", " → ") : variant), ` in ${milliseconds(total ? +total[1] : NaN)}, `, html("span", { class: slo_met ? "yes" : "no" }, slo_met ? "in time" : "late"), `; with the way to this page and back ${milliseconds(trip_ms)}.`),
      html("p", { class: "soft" }, `${route_reason}: ${this.words.chosen[route_reason] ?? ""}.${sure}`),
    ];
  }

  refused(said, answer) {
    const reason = answer.headers.get("x-request-dropped-reason");
    return [html("p", { class: "big no" }, `Refused (${answer.status})`), html("p", {}, said.error ?? ""), html("p", { class: "soft" }, reason ? `${reason}: ${this.words.refused[reason] ?? ""}.` : "")];
  }
}

const place = (ms) => (100 * Math.log(ms / LEAST_MS)) / Math.log(MOST_MS / LEAST_MS);

function paint(canvas, { pixels, side }) {
  canvas.width = canvas.height = side;
  const context = canvas.getContext("2d");
  const image = context.createImageData(side, side);
  pixels.forEach((grey, index) => image.data.set([grey, grey, grey, 255], 4 * index));
  context.putImageData(image, 0, 0);
}
