// The keys of the console: `?` shows them. None of them acts on the fleet.

const ITEMS = "main article[id], main tbody tr[id], main li[id]";
const SEARCH = 'main input[type="search"], main input[name="q"]';
const GO_MS = 1500;
let going = 0; // until when a letter after `g` leads to a page

export function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || event.defaultPrevented) return;
    if (act(event.key)) event.preventDefault();
  });
}

/** The letter of each page of the menu: the first of its name that no page before it has. */
export function letters() {
  const found = new Map();
  for (const link of document.querySelectorAll("header nav a")) {
    const free = [...link.textContent.trim().toLowerCase()].find((one) => /[a-z]/.test(one) && !found.has(one));
    if (free) found.set(free, link);
  }
  return found;
}

function act(key) {
  if (Date.now() < going) {
    going = 0;
    const link = letters().get(key);
    if (link) location.assign(link.href);
    return Boolean(link);
  }
  if (key === "g") going = Date.now() + GO_MS;
  else if (key === "?") show();
  else if (key === "/") return focus(document.querySelector(SEARCH));
  else if (key === "j" || key === "k") return step(key === "j" ? 1 : -1);
  else if (key === "Enter" && document.activeElement?.matches(ITEMS)) document.activeElement.querySelector("a")?.click();
  else return false;
  return true;
}

function step(by) {
  const items = [...document.querySelectorAll(ITEMS)].filter((one) => one.offsetParent);
  const at = items.findIndex((one) => one.contains(document.activeElement));
  return focus(items[at < 0 ? (by > 0 ? 0 : items.length - 1) : at + by]);
}

function focus(element) {
  if (!element) return false;
  if (!element.matches("input")) element.tabIndex = -1;
  element.focus();
  element.scrollIntoView({ block: "nearest" });
  return true;
}

function isTyping(element) {
  return element.isContentEditable || element.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [data-keys]");
}

/** Show what the keys do; what is left of it with Escape is where the person was. */
function show() {
  const dialog = document.getElementById("keys") ?? made();
  if (dialog.open) return dialog.close();
  const pages = [...letters()].map(([letter, link]) => [`g ${letter}`, link.firstChild.textContent.trim()]);
  const rows = [["?", "These keys"], ...pages, ["/", "Search on this page"], ["j k", "The next, the one before"],
    ["Enter", "Open it"], ["Esc", "Close this"]];
  dialog.querySelector("dl").replaceChildren(...rows.flatMap(([keys, what]) => [tag("dt", keys), tag("dd", what)]));
  dialog.showModal();
}

function made() {
  const dialog = document.createElement("dialog");
  dialog.id = "keys";
  dialog.setAttribute("aria-labelledby", "keys-title");
  const title = tag("h2", "Keys");
  title.id = "keys-title";
  const close = tag("button", "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.append(title, document.createElement("dl"), close);
  document.body.append(dialog);
  return dialog;
}

function tag(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}
