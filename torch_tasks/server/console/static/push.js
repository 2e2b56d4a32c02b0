// Has this browser told of what needs a person, and shows what a notification was about.

import { say } from "./forms.js";

const ALL = "all"; // every need that the page shows
const RENEW_MS = 86400000;
const proof = document.querySelector('meta[name="torch-proof"]')?.content ?? "";

/** Show the button that turns it on and off, where the browser knows of pushes. */
export async function offerPush() {
  const button = document.getElementById("push");
  if (!button || !("PushManager" in window) || !navigator.serviceWorker) return;
  const worker = await navigator.serviceWorker.ready;
  const show = (is_on) => button.setAttribute("aria-pressed", String(is_on));
  const known = await worker.pushManager.getSubscription();
  show(Boolean(known));
  button.hidden = false;
  if (known && isOld()) renew(known);
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      const on = button.getAttribute("aria-pressed") === "true";
      await (on ? end(worker) : begin(worker));
      show(!on);
    } catch (error) {
      say(error.message, true);
    } finally {
      button.disabled = false;
    }
  });
}

async function begin(worker) {
  if ((await Notification.requestPermission()) !== "granted") throw new Error("This browser was not allowed to show notifications.");
  const { key } = await asked("/push/key");
  const made = await worker.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: bytes(key) });
  say((await renew(made)).said);
}

async function end(worker) {
  const known = await worker.pushManager.getSubscription();
  const told = await asked("/push/end", { endpoint: known?.endpoint });
  await known?.unsubscribe();
  say(told.said);
}

async function renew(subscription) {
  const told = await asked("/push/begin", subscription.toJSON());
  localStorage.setItem("torch-push", String(Date.now()));
  return told;
}

function isOld() {
  return Date.now() - Number(localStorage.getItem("torch-push") ?? 0) > RENEW_MS;
}

async function asked(path, given) {
  const how = given && { method: "POST", body: JSON.stringify({ ...given, proof }), headers: { "Content-Type": "application/json" } };
  const reply = await fetch(path, how);
  const told = await reply.json();
  if (!reply.ok) throw new Error(told.detail);
  return told;
}

function bytes(key) {
  return Uint8Array.from(atob(key.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
}

/** Somebody comes by a notification: nobody else has to be told of it, and the page shows it. */
export async function showNeed() {
  const address = new URL(location.href);
  const need = address.searchParams.get("need");
  if (!need) return;
  address.searchParams.delete("need");
  history.replaceState(history.state, "", address);
  if (need !== ALL) document.getElementById(`need-${need.replaceAll(" ", "-")}`)?.scrollIntoView({ block: "center" });
  const seen = need === ALL ? [...document.querySelectorAll("[data-need]")].map((one) => one.dataset.need) : [need];
  for (const one of seen) {
    const body = new URLSearchParams({ need: one, _proof: proof });
    await fetch("/do/fleet.seen", { method: "POST", body, headers: { "X-Torch-Console": "script" } });
  }
}
