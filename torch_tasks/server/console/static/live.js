// The one stream of a window: the fleet's events, and the terminals that are in view. It ends while nobody sees the
// window, so that windows behind others take none of the few connections that a browser keeps to a server.

const NAMES = ["begin", "task", "agent", "question", "broker", "missed", "pane"];
const SETTLE_MS = 250;
const AGAIN_MS = 5000; // after a refusal, which the browser itself does not ask again after
const wanted = { kinds: "", agents: "", thumb: "" };
let stream = null;
let shown = ""; // what the open stream is for
let place = ""; // the last event that came
let timer = null;

/** Whatever comes, by its name; `open` and `away` say whether the server answers. */
export const live = new EventTarget();

/** Follow this, too, or instead of what was asked for by the same names. */
export function want(parts) {
  Object.assign(wanted, parts);
  clearTimeout(timer);
  timer = setTimeout(follow, SETTLE_MS);
}

document.addEventListener("visibilitychange", follow);
addEventListener("pagehide", close);
addEventListener("pageshow", (event) => event.persisted && follow());

function follow() {
  const asked = document.hidden ? "" : address();
  if (asked === shown) return;
  close();
  shown = asked;
  if (asked) open(asked);
}

function address() {
  const given = Object.entries(wanted).filter(([, value]) => value);
  return wanted.kinds || wanted.agents ? `/live?${new URLSearchParams(given)}` : "";
}

function close() {
  stream?.close();
  stream = null;
  shown = "";
}

function open(asked) {
  let goesOn = place !== ""; // what happened since comes with the stream itself
  const opened = new EventSource(goesOn ? `${asked}&after=${encodeURIComponent(place)}` : asked);
  stream = opened;
  opened.onopen = () => live.dispatchEvent(new Event("open"));
  opened.onerror = () => {
    goesOn = false;
    live.dispatchEvent(new Event("away"));
    if (opened.readyState !== EventSource.CLOSED || opened !== stream) return;
    close();
    setTimeout(follow, AGAIN_MS);
  };
  for (const name of NAMES) {
    opened.addEventListener(name, ({ data, lastEventId }) => {
      if (lastEventId) place = lastEventId;
      if (name !== "begin" || !goesOn) live.dispatchEvent(new MessageEvent(name, { data }));
    });
  }
}
