// Types into a terminal that its person has taken over: what is pressed there goes to its program, in order.

import { say } from "./forms.js";

const KEYS = {
  Enter: "Enter", Escape: "Escape", Tab: "Tab", Backspace: "BSpace", Delete: "DC", ArrowUp: "Up", ArrowDown: "Down",
  ArrowLeft: "Left", ArrowRight: "Right", Home: "Home", End: "End", PageUp: "PageUp", PageDown: "PageDown",
};
const LOOK_SECONDS = 5; // how soon a terminal is known that was taken over meanwhile
const waiting = []; // strokes that are not sent yet: {text}, {key} or {paste}
let sending = false;

/** Have every terminal in an element with `data-typing` take keys while it has the focus. */
export function typeIntoPanes() {
  document.addEventListener("keydown", press, true); // before the keys of the page
  document.addEventListener("paste", paste);
  stay();
}

/** The agent into whose terminal this event is typed. */
function agentOf(event) {
  return event.target.closest?.("[data-typing] .pane")?.closest("[data-typing]");
}

function press(event) {
  const place = agentOf(event);
  if (!place || event.isComposing || event.metaKey || event.altKey) return;
  const stroke = strokeOf(event);
  if (!stroke) return;
  event.preventDefault();
  send(place, stroke);
}

function strokeOf({ key, ctrlKey, shiftKey }) {
  if (key === "F6") return null; // leaves the terminal, as in any window
  if (key === "Tab" && shiftKey) return { key: "BTab" };
  if (key in KEYS) return { key: KEYS[key] };
  if (!ctrlKey) return key.length === 1 || [...key].length === 1 ? { text: key } : null;
  const isCopied = key === "c" && !getSelection().isCollapsed;
  return /^[a-z]$/.test(key) && key !== "v" && !isCopied ? { key: `C-${key}` } : null;
}

function paste(event) {
  const place = agentOf(event);
  const text = event.clipboardData?.getData("text/plain");
  if (!place || !text) return;
  event.preventDefault();
  send(place, { paste: text });
}

async function send(place, stroke) {
  waiting.push(stroke);
  if (sending) return;
  sending = true;
  while (waiting.length) {
    if (!(await post(place, next()))) waiting.length = 0; // what follows was meant for after it
  }
  sending = false;
}

/** As many strokes as one request holds: characters, then keys. */
function next() {
  if (waiting[0].paste) return { operation: "agent.paste", text: waiting.shift().paste, keys: [] };
  let text = "";
  const keys = [];
  while (waiting[0]?.text && text.length < 500) text += waiting.shift().text;
  while (waiting[0]?.key && keys.length < 50) keys.push(waiting.shift().key);
  return { operation: "agent.type", text, keys };
}

async function post(place, { operation, text, keys }) {
  const body = new URLSearchParams({ agent_id: place.dataset.typing, _proof: place.querySelector("[name=_proof]").value });
  if (text) body.set("text", text);
  for (const key of keys) body.append("keys", key);
  try {
    const reply = await fetch(`/do/${operation}`, { method: "POST", body, headers: { "X-Torch-Console": "script" } });
    if (!reply.ok) say((await reply.json()).detail, true);
    return reply.ok;
  } catch {
    say("The server did not answer. Whether that was typed is not known: look before you type on.", true);
    return false;
  }
}

/** Give signs of being there, as often as each terminal wants them. */
function stay() {
  const places = [...document.querySelectorAll("[data-typing]")];
  for (const { dataset } of places) {
    fetch(`/api/v1/agent.taken_over?agent_id=${encodeURIComponent(dataset.typing)}`).catch(() => {}); // the next one counts, too
  }
  const seconds = places.length ? Math.min(...places.map(({ dataset }) => Number(dataset.stay))) : LOOK_SECONDS;
  setTimeout(stay, 1000 * seconds);
}
