// The page's one place for state: what the stream says goes in here and out to the parts.

import { listen, onKey } from "./ask.js";
import { byId, count, html, megabytes, milliseconds, percent, say } from "./dom.js";
import { drawComparison, pollComparison } from "./comparison.js";
import { showDecisions } from "./decisions.js";
import { Families } from "./families.js";
import { Frontier } from "./frontier.js";
import { drawSeries } from "./series.js";
import { Try } from "./try.js";
import { showWhy } from "./why.js";

const state = { welcome: null, tick: null, seconds: new Map(), load: new Map(), decisions: new Map() };
const frontier = new Frontier(byId("frontier"), byId("variants"));
const trying = new Try();
const families = new Families(byId("families"), byId("search"), choose);
let stream = null;
let polling = null;
let again = null;
const AGAIN_MS = 3000;

function choose(name) {
  const url = new URL(location.href);
  url.searchParams.set("family", name);
  history.replaceState(null, "", url);
  connect();
}

function connect() {
  disconnect();
  const wanted = new URL(location.href).searchParams.get("family");
  stream = new AbortController();
  const { signal } = stream;
  const path = wanted ? `events?family=${encodeURIComponent(wanted)}` : "events";
  const ended = () => signal.aborted || lost();
  listen(path, { welcome, tick }, signal).then(ended, ended);
}

function lost() {
  phase("lost", byId("key").hidden ? "connection lost, trying again" : "an API key is needed");
  clearTimeout(again);
  if (byId("key").hidden) again = setTimeout(connect, AGAIN_MS);
}

function disconnect() {
  stream?.abort();
  clearTimeout(again);
  clearInterval(polling);
}

function welcome(said) {
  state.welcome = said;
  state.tick = null;
  state.seconds = new Map((said.seconds ?? []).map((second) => [second[0], second]));
  state.load = new Map(said.load.map((line) => [line[0], line]));
  state.decisions = new Map((said.decisions ?? []).map((decision) => [decision.number, decision]));
  phase(said.phase, said.phase);
  say(byId("version"), `Pareto Gateway ${said.version}, policy ${said.policy}, ${said.slots} ${said.slots === 1 ? "slot" : "slots"}`);
  say(byId("window"), String(said.window_s));
  say(byId("trouble"), said.problems.join("; "));
  byId("trouble").hidden = said.problems.length === 0;
  const select = byId("family");
  select.replaceChildren(...said.families.map((family) => html("option", { value: family.name }, family.name)));
  if (said.family !== null) {
    select.value = said.family.name;
    say(byId("about"), said.family.description);
    document.title = `${said.family.name}: Pareto Gateway`;
    frontier.begin(said.family);
    trying.begin(said.family, said.words);
  }
  families.begin(said.families, said.family?.name);
  byId("comparison").hidden = !said.comparison;
  clearInterval(polling);
  if (said.comparison) {
    const poll = () => pollComparison().then((found) => found && drawComparison(found, said.family));
    poll();
    polling = setInterval(poll, 1000);
  }
  drawSeries(state);
  // Before the first second is over, too, no heading stands alone.
  showWhy(null, said.words, {});
  showDecisions(state, true);
}

function tick(said) {
  state.tick = said;
  for (const second of said.seconds ?? []) state.seconds.set(second[0], second);
  for (const line of said.load) state.load.set(line[0], line);
  for (const decision of said.decisions ?? []) state.decisions.set(decision.number, decision);
  forget(state.seconds, (at) => at < said.now - state.welcome.history_s);
  forget(state.load, (at) => at < said.now - state.welcome.history_s);
  const last = Math.max(0, ...state.decisions.keys());
  forget(state.decisions, (number) => number <= last - 50);
  tiles(said);
  say(byId("trial"), said.trial ?? "");
  byId("trial").hidden = !said.trial;
  say(byId("broken"), said.broken ?? "");
  byId("broken").hidden = !said.broken;
  frontier.update(said.recent, said.latency_ms ?? {});
  drawSeries(state);
  showWhy(said.recent, state.welcome.words, said.refused_early);
  showDecisions(state);
  families.update(said.families, state.welcome.window_s);
  const loaded = state.welcome.families.length;
  say(byId("memory"), `${loaded} ${loaded === 1 ? "family" : "families"} loaded; the process holds ${megabytes(said.memory_bytes)}.`);
}

function forget(map, isOld) {
  for (const key of map.keys()) if (isOld(key)) map.delete(key);
}

function phase(name, text) {
  const pill = byId("phase");
  if (pill.dataset.phase !== name) {
    pill.dataset.phase = name;
    say(byId("announce"), `Gateway: ${text}`);
  }
  say(pill, text);
}

function tiles(said) {
  const recent = said.recent ?? { requests: 0, judged: 0, met: 0, expected: 0, p50_ms: null, p99_ms: null };
  const window_s = state.welcome.window_s;
  const shown = [
    ["Answered in time", percent(recent.met / recent.judged), said.caution > 1 ? `planned with ${said.caution.toFixed(2)} times the margin` : "of those with an SLO"],
    ["Expected right in time", percent(recent.expected / recent.requests), "of all requests"],
    ["Requests", `${(recent.requests / window_s).toFixed(recent.requests < 100 ? 1 : 0)}/s`, `${count(said.total ?? 0)} in all`],
    ["Latency", milliseconds(recent.p50_ms), `p99 ${milliseconds(recent.p99_ms)}`],
    ["Rows waiting", count(said.queued), `${count(said.unfinished)} unfinished`],
    ["Slots busy", `${said.busy} of ${state.welcome.slots}`, "at this moment"],
  ];
  const list = byId("tiles");
  if (list.childElementCount !== shown.length) {
    list.replaceChildren(...shown.map(([name]) => html("div", {}, html("dt", {}, name), html("dd", {}, html("span"), " ", html("small")))));
  }
  shown.forEach(([, value, beside], index) => {
    const [number, small] = list.children[index].lastElementChild.children;
    say(number, value);
    say(small, beside);
  });
}

byId("family").addEventListener("change", (event) => choose(event.target.value));
// A tab that nobody sees costs nothing; when it is seen again it starts with the whole history.
onKey(connect);
document.addEventListener("visibilitychange", () => (document.hidden ? disconnect() : connect()));
connect();
