// What the page asks the gateway for, with an API key where one is wanted. The key stays in this tab, and in no address.

import { byId, say } from "./dom.js";

const KEPT = "pareto-api-key";
const UNAUTHORIZED = 401, FORBIDDEN = 403;
let renewed = () => {};

/** Call this when another key is there. */
export function onKey(callback) {
  renewed = callback;
}

/** As `fetch`, with the key. A refusal for want of a better one shows the form that asks for it. */
export async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEPT);
  const headers = key === null ? options.headers : { ...options.headers, authorization: `Bearer ${key}` };
  const answer = await fetch(path, { ...options, headers, credentials: "omit" });
  if (answer.status === UNAUTHORIZED || answer.status === FORBIDDEN) wanted(key === null ? "" : (await answer.clone().json()).error);
  return answer;
}

/** Read server-sent events until the stream ends or is aborted; each goes to the handler of its name. */
export async function listen(path, handlers, signal) {
  const answer = await ask(path, { signal, headers: { accept: "text/event-stream" } });
  if (!answer.ok) throw new Error(`refused (${answer.status})`);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event);
      handlers[name]?.(JSON.parse(data));
    }
  }
}

function wanted(fault) {
  byId("key").hidden = false;
  say(byId("key-said"), fault);
}

byId("key").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEPT, byId("secret").value.trim());
  byId("secret").value = "";
  byId("key").hidden = true;
  byId("forget").hidden = false;
  renewed();
});

byId("forget").hidden = sessionStorage.getItem(KEPT) === null;
byId("forget").addEventListener("click", () => {
  sessionStorage.removeItem(KEPT);
  byId("forget").hidden = true;
  renewed();
});
