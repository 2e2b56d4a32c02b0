// Follows the fleet's events, and has an open page ask for its content again when there is news for it.

import { isSending } from "./forms.js";
import { live, want } from "./live.js";
import { morph } from "./morph.js";
import { showTimes } from "./times.js";

const SOONEST_MS = 1000;
const SETTLE_MS = 300; // longer than the server shares a reply among its viewers
const QUIET_MS = 15000;
const AS_IT_WAS = "The server fails to show this page anew; what you see is how things were. Trying again…";
let asked = 0; // when the content was last asked for
let happened = 0; // when something last happened
let timer = null;
let asking = false;
let isElsewhere = false; // the address has changed since it was asked for

/** Keep the content as new as the fleet's events; it names their kinds in `data-news`. */
export function follow(content) {
  const kinds = content.dataset.news;
  if (!kinds) return;
  for (const name of ["task", "agent", "question", "broker", "missed", "begin"]) {
    live.addEventListener(name, () => soon(content)); // begin: what happened before the stream began
  }
  live.addEventListener("open", () => say(""));
  live.addEventListener("away", () => say("The server does not answer; what you see is how things were. Trying again…"));
  want({ kinds });
  setInterval(() => soon(content), QUIET_MS); // what changes without an event
  document.addEventListener("visibilitychange", () => document.hidden || soon(content));
  document.addEventListener("torch-done", () => soon(content, 0));
  document.addEventListener("torch-elsewhere", () => {
    isElsewhere = true;
    if (!asking) refresh(content);
  });
}

function soon(content, least = SOONEST_MS) {
  happened = Date.now();
  plan(content, least);
}

function plan(content, least = SOONEST_MS) {
  if (timer !== null || asking || document.hidden) return;
  const wait = Math.max(asked + least, happened + SETTLE_MS) - Date.now();
  timer = setTimeout(() => {
    timer = null;
    if (!isSending()) refresh(content);
  }, Math.max(0, wait));
}

async function refresh(content) {
  asking = true;
  const isNew = isElsewhere;
  isElsewhere = false;
  asked = Date.now();
  try {
    const reply = await fetch(location.href, { headers: { "X-Torch-Console": "script" } });
    if (reply.redirected || reply.status === 401) return location.reload(); // the login is over
    if (!reply.headers.get("Content-Type").startsWith("text/html")) return say(AS_IT_WAS); // the server failed at it
    if (document.getElementById("connection").textContent === AS_IT_WAS) say("");
    showNeeded(Number(reply.headers.get("X-Torch-Needed")));
    const fresh = document.createElement("template");
    fresh.innerHTML = await reply.text();
    showTimes(fresh.content);
    morph(content, fresh.content);
    document.dispatchEvent(new CustomEvent("torch-shown"));
    if (isNew) showAsked();
  } catch {
    // the stream of events says that the server is away, and when it is back
  } finally {
    asking = false;
  }
  if (isElsewhere) return refresh(content);
  if (happened > asked - SETTLE_MS) plan(content); // what was shown may be from before
}

/** What is asked before something is done: in view, with the focus in it. */
function showAsked() {
  document.querySelector("#asked input, #asked select")?.focus({ preventScroll: true });
  document.getElementById("asked")?.scrollIntoView({ block: "nearest" });
}

function say(text) {
  const place = document.getElementById("connection");
  place.textContent = text;
  place.hidden = !text;
}

/** How many things wait for a person: in the menu, and in the page's title, which is seen where the page is not. */
function showNeeded(count) {
  const place = document.getElementById("needed");
  if (place) {
    place.textContent = count;
    place.hidden = count === 0;
  }
  const title = document.title.replace(/^\(\d+\) /, "");
  document.title = count ? `(${count}) ${title}` : title;
}
