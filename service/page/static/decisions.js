// The last decisions, explained one by one.

import { byId, html, milliseconds, percent } from "./dom.js";

const SHOWN = 10;
const EVERY_MS = 2000;
let held = false;
let shown = 0;

byId("hold").addEventListener("click", (event) => {
  held = !held;
  event.currentTarget.setAttribute("aria-pressed", String(held));
});

/** Show the newest, at most every two seconds, so that they can be read; not while they are held. */
export function showDecisions(state, at_once = false) {
  const now = performance.now();
  if (!at_once && (held || now - shown < EVERY_MS)) return;
  shown = now;
  const { words } = state.welcome;
  const newest = [...state.decisions.values()].sort((a, b) => b.number - a.number).slice(0, SHOWN);
  byId("decisions").replaceChildren(...(newest.length ? newest.map((decision) => item(decision, words)) : [html("li", { class: "soft" }, "No requests yet.")]));
}

function item(decision, words) {
  const answered = decision.variant !== "";
  const limit = decision.slo_ms === null ? "no SLO" : `of ${milliseconds(decision.slo_ms)}`;
  const verdict = decision.slo_ms === null ? null : html("span", { class: decision.slo_met ? "yes" : "no" }, decision.slo_met ? "in time" : answered ? "late" : "not answered");
  const way = decision.path.length > 1 ? decision.path.join(" → ") : decision.variant || decision.outcome.replace("_", " ");
  return html("li", {},
    html("b", {}, way), ` #${decision.number}: `, `${milliseconds(decision.total_ms)} ${limit} `, verdict,
    decision.rows > 1 ? `, ${decision.rows} rows` : "", decision.batch > 1 ? `, in a batch of ${decision.batch}` : "",
    bar(decision), html("span", { class: "why" }, because(decision, words, answered)));
}

function because(decision, words, answered) {
  if (!answered) return `${decision.reason}: ${words.refused[decision.reason] ?? ""}.`;
  const said = [`${decision.reason}: ${words.chosen[decision.reason] ?? ""}`];
  if (decision.escalation === "escalated") said.push(`the first answer was ${percent(decision.confidence, 0)} sure`);
  else if (decision.escalation !== "none") said.push(`${words.escalations[decision.escalation]} (first answer ${percent(decision.confidence, 0)} sure)`);
  return `${said.join("; ")}. Waited ${milliseconds(decision.queue_ms)}, computed ${milliseconds(decision.compute_ms)}.`;
}

/** Waiting and computing as parts of the SLO, or of the whole where that took longer. */
function bar(decision) {
  const whole = Math.max(decision.slo_ms ?? 0, decision.total_ms, 0.001);
  const queue = html("i", { class: "queue" }), compute = html("i", { class: decision.slo_met ? "compute" : "over" });
  queue.style.width = `${(100 * decision.queue_ms) / whole}%`;
  compute.style.left = queue.style.width;
  compute.style.width = `${(100 * decision.compute_ms) / whole}%`;
  return html("span", { class: "time", "aria-hidden": "true" }, queue, compute);
}
