// Why these variants answered in the last seconds, and why requests were refused.

import { byId, html, percent, say } from "./dom.js";

/** Fill the lists. `early` counts requests refused before they were queued, by HTTP status, since the start. */
export function showWhy(recent, words, early) {
  const chosen = recent?.chosen ?? {}, escalations = recent?.escalations ?? {};
  const answered = sum(chosen);
  const lines = Object.entries(chosen).map(([reason, number]) => [reason, number, answered, words.chosen[reason]]);
  fill(byId("why"), lines, "Nothing was answered in the last seconds.");
  const better = Object.entries(escalations).map(([word, number]) => [word, number, answered, words.escalations[word]]);
  fill(byId("better"), better, "Nothing was answered in the last seconds.");
  const refused = recent?.refused ?? {};
  const requests = Math.max(1, recent?.requests ?? 1);
  const turned = Object.entries(refused).map(([reason, number]) => [reason, number, requests, words.refused[reason]]);
  for (const [status, number] of Object.entries(early ?? {})) turned.push([`HTTP ${status}`, number, null, "before it was queued, since the start, whatever the family"]);
  fill(byId("refused"), turned, "Nobody was refused.");
  byId("refused").classList.add("bad");
}

const sum = (counts) => Object.values(counts).reduce((total, number) => total + number, 0);

function fill(list, lines, otherwise) {
  lines.sort((a, b) => b[1] - a[1]);
  const names = lines.map(([name]) => name).join();
  if (list.dataset.names !== names || list.childElementCount === 0) {
    list.dataset.names = names;
    list.replaceChildren(...(lines.length ? lines.map(() => html("li", {}, html("b"), " ", html("span"), html("i", { class: "bar", "aria-hidden": "true" }))) : [html("li", { class: "soft" }, otherwise)]));
  }
  lines.forEach(([name, number, whole, words], index) => {
    const [head, text, bar] = list.children[index].children;
    say(head, whole ? `${percent(number / whole, 0)} ${name}` : `${number} ${name}`);
    say(text, words ?? "");
    bar.style.width = whole ? `${(100 * number) / whole}%` : "0";
  });
}
