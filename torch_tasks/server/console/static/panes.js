// Shows live terminals, and only those that are in view.

import { live, want } from "./live.js";

const NEAR = 4; // pixels; who scrolls by less stays where the newest line is
const BELOW = 8; // pixels between the newest line and the end of what is seen
const inView = new Set();
const known = new WeakSet();
const left = new WeakSet(); // from whose newest line a person has scrolled up
const shownAt = new WeakMap(); // how far each was scrolled here
const HANDS = ["wheel", "touchmove", "pointerdown", "pointermove", "keydown"];
const HAND_MS = 1500; // what scrolls so long after is no person's doing
let handAt = -HAND_MS;
const looking = new IntersectionObserver((seen) => {
  for (const one of seen) one.isIntersecting ? inView.add(one.target) : inView.delete(one.target);
  follow();
});
const resized = new ResizeObserver((seen) => { // a phone's keyboard comes and goes, letters are drawn anew
  for (const pane of new Set(seen.map((one) => one.target.closest("[data-pane]")))) {
    if (pane && !left.has(pane)) showNewest(pane);
  }
});

/** Show every element with `data-pane`, those that come later, too. */
export function showPanes() {
  find();
  for (const kind of HANDS) document.addEventListener(kind, () => (handAt = performance.now()), { passive: true, capture: true });
  document.addEventListener("torch-shown", find);
  live.addEventListener("pane", (event) => show(JSON.parse(event.data)));
}

function find() {
  for (const one of document.querySelectorAll("[data-pane]")) {
    one.dataset.keep = ""; // its content is from the stream
    looking.observe(one);
    if (isSmall(one) || known.has(one)) continue; // a small one holds the last rows alone
    known.add(one);
    one.addEventListener("scroll", () => noteScroll(one));
    resized.observe(one);
  }
  follow();
}

function follow() {
  for (const one of inView) if (!one.isConnected) inView.delete(one);
  const panes = [...inView];
  const agents = [...new Set(panes.map((one) => one.dataset.pane))].sort().join(",");
  want({ agents, thumb: agents && panes.every(isSmall) ? "1" : "" });
}

function isSmall(pane) {
  return pane.classList.contains("thumb");
}

function show(news) {
  for (const one of inView) if (one.dataset.pane === news.agent) draw(one, news);
}

function draw(pane, { columns, count, rows, trouble }) {
  const screen = rowsOf(pane, columns);
  if (Object.keys(rows).length === count) {
    screen.innerHTML = Object.values(rows).map((html) => `<div class="row">${html}</div>`).join("");
    rows = {}; // all are new: one step is a third of the work
  }
  while (screen.children.length > count) screen.lastChild.remove();
  while (screen.children.length < count) {
    const row = document.createElement("div");
    row.className = "row";
    screen.append(row);
  }
  for (const [at, html] of Object.entries(rows)) screen.children[at].innerHTML = html; // escaped by the server
  pane.classList.toggle("stale", trouble !== "");
  let note = pane.querySelector(":scope > .trouble");
  if (!trouble) note?.remove();
  else if (!note) pane.prepend((note = Object.assign(document.createElement("p"), { className: "trouble" })));
  if (trouble) note.textContent = trouble;
  if (!isSmall(pane) && !left.has(pane)) showNewest(pane);
}

function showNewest(pane) {
  pane.scrollTop = newest(pane);
  shownAt.set(pane, pane.scrollTop);
}

function noteScroll(pane) {
  if (pane.scrollTop === shownAt.get(pane)) return; // nobody's doing but this page's, whatever has changed since
  if (pane.scrollTop >= newest(pane) - NEAR) left.delete(pane);
  else if (left.has(pane) || isByPerson()) left.add(pane);
  else showNewest(pane);
}

/** Whether a person is there who may have scrolled; who searches the page does so in a field outside of it. */
function isByPerson() {
  return performance.now() - handAt < HAND_MS || !document.hasFocus();
}

/** How far it is scrolled when it ends with the last row that has something in it; who types sees the cursor, too. */
function newest(pane) {
  const above = pane.getBoundingClientRect().top + pane.clientTop - pane.scrollTop;
  const rows = [...pane.querySelectorAll(":scope > .screen > .row")];
  const last = rows.findLast((row) => row.textContent.trim() || row.querySelector(".cursor"));
  const cursor = pane.matches("[data-typing] :focus") ? pane.querySelector(".cursor") : null;
  const end = last ? last.getBoundingClientRect().bottom - above + BELOW - pane.clientHeight : 0;
  const least = cursor ? cursor.getBoundingClientRect().top - above : end;
  return Math.max(0, Math.min(end, least, pane.scrollHeight - pane.clientHeight));
}

function rowsOf(pane, columns) {
  let screen = pane.querySelector(":scope > .screen");
  if (!screen) {
    pane.replaceChildren();
    screen = document.createElement("div");
    screen.className = "screen";
    pane.append(screen);
    if (!isSmall(pane)) resized.observe(screen);
  }
  if (screen.dataset.columns !== String(columns)) {
    screen.dataset.columns = columns;
    screen.style.setProperty("--columns", columns);
  }
  return screen;
}
