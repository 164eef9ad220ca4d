// What one fixed variant would have made of the demo's traffic, beside what the gateway did.

import { ask } from "./ask.js";
import { byId, colour, count, fillTable, percent, say } from "./dom.js";
import { lines } from "./series.js";

let tag = null;

/** The comparison, or null where there is none yet or nothing new. */
export async function pollComparison() {
  const answer = await ask("page/comparison");
  if (!answer.ok) return null;
  const text = await answer.text();
  if (text === tag) return null;
  tag = text;
  return JSON.parse(text);
}

/** Draw it: shares over five seconds up to now, and a table of all variants for the same seconds. */
export function drawComparison(found, family) {
  const until = found.live.correct.length;
  const sum = (values) => values.slice(0, until).reduce((total, value) => total + value, 0);
  const arrivals = Math.max(1, sum(found.arrivals));
  const fixed = Object.entries(found.fixed).map(([name, one]) => ({ name, right: sum(one.correct) / arrivals, inTime: sum(one.in_time) / arrivals, one }));
  if (fixed.length === 0) return;
  const best = fixed.reduce((a, b) => (b.right > a.right ? b : a));
  const right = sum(found.live.correct) / arrivals;
  const lost = right - best.right;
  const doing = found.done ? "The day is over" : `${count(until)} of ${count(found.arrivals.length)} seconds`;
  say(byId("comparison-said"), `${doing}: of ${count(arrivals)} requests the gateway answered ${percent(right)} correctly in time, counted on labelled rows. ` +
    `The best fixed variant, ${best.name}, known in hindsight, would have ${lost >= 0 ? "lost" : "gained"} ${Math.abs(100 * lost).toFixed(1)} points. ` +
    `Fixed variants are simulated on the same arrivals with this machine's profile; the gateway is live${found.simulated ? `, and in the same simulation it has ${percent(sum(found.simulated.correct) / arrivals)}` : ""}.`);
  const names = family?.variants.map((variant) => variant.name) ?? [];
  const shown = [...new Set([fixed[0], fixed.at(-1), best])];
  const share = (correct) => correct.map((_, index) => {
    const from = Math.max(0, index - 4);
    const part = (values) => values.slice(from, index + 1).reduce((total, value) => total + value, 0);
    return index < until && part(found.arrivals) ? part(correct) / part(found.arrivals) : null;
  });
  const padded = (values) => [...values, ...Array(found.arrivals.length - values.length).fill(0)];
  const most = Math.max(1, ...found.arrivals);
  lines(byId("comparison-chart"), "Share of all requests answered correctly in time", 200, 1, (value) => `${Math.round(100 * value)}`, [
    { name: "arrivals", paint: "var(--dominated)", filled: true, values: found.arrivals.map((value) => (0.3 * value) / most) },
    ...shown.map(({ name, one }) => ({ name: `${name} alone`, paint: colour(names.indexOf(name), names.length), dashed: true, values: share(one.correct) })),
    { name: "gateway", paint: "var(--text)", values: share(padded(found.live.correct)) },
  ], ["begin", "end"]);
  const line = (name, one, how) => [name, percent(sum(one.correct) / arrivals), `${(100 * (sum(one.correct) / arrivals - right)).toFixed(1)}`, percent(sum(one.in_time) / arrivals), how];
  fillTable(byId("comparison-table"), ["who answers", "correct in time", "points to the gateway", "in time", "how it is known"], [
    line("the gateway", found.live, "live"),
    ...(found.simulated ? [line("the gateway", found.simulated, "simulated")] : []),
    ...fixed.map(({ name, one }) => line(`${name} alone`, one, "simulated")),
  ]);
}
