// Shows live terminals, and only those that are in view.

import { live, want } from "./live.js";

const MARGIN = 60; // below the row that is written to, where a program may have a line about its state
const inView = new Set();
const shownAt = new WeakMap(); // how far each was scrolled when it was drawn
const looking = new IntersectionObserver((seen) => {
  for (const one of seen) one.isIntersecting ? inView.add(one.target) : inView.delete(one.target);
  follow();
});

/** Show every element with `data-pane`, those that come later, too. */
export function showPanes() {
  find();
  document.addEventListener("torch-shown", find);
  live.addEventListener("pane", (event) => show(JSON.parse(event.data)));
}

function find() {
  for (const one of document.querySelectorAll("[data-pane]")) {
    one.dataset.keep = ""; // its content is from the stream
    looking.observe(one);
  }
  follow();
}

function follow() {
  for (const one of inView) if (!one.isConnected) inView.delete(one);
  const panes = [...inView];
  const isSmall = panes.every((one) => one.classList.contains("thumb"));
  const agents = [...new Set(panes.map((one) => one.dataset.pane))].sort().join(",");
  want({ agents, thumb: agents && isSmall ? "1" : "" });
}

function show(news) {
  for (const one of inView) if (one.dataset.pane === news.agent) draw(one, news);
}

function draw(pane, { columns, count, rows, trouble }) {
  const isSmall = pane.classList.contains("thumb"); // shows the last rows, and asking where it is would cost much
  const follows = !isSmall && Math.abs(pane.scrollTop - (shownAt.get(pane) ?? pane.scrollTop)) < 4; // nobody has scrolled it
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
  if (follows) showLatest(pane, screen);
  pane.classList.toggle("stale", trouble !== "");
  let note = pane.querySelector(":scope > .trouble");
  if (!trouble) return note?.remove();
  if (!note) pane.prepend((note = Object.assign(document.createElement("p"), { className: "trouble" })));
  note.textContent = trouble;
}

/** Where the program writes: the row of its cursor, or the last one. */
function showLatest(pane, screen) {
  const row = screen.querySelector(".cursor")?.closest(".row") ?? screen.lastElementChild;
  if (row) pane.scrollTop += row.getBoundingClientRect().bottom - pane.getBoundingClientRect().bottom + MARGIN;
  shownAt.set(pane, pane.scrollTop);
}

function rowsOf(pane, columns) {
  let screen = pane.querySelector(":scope > .screen");
  if (!screen) {
    pane.replaceChildren();
    screen = document.createElement("div");
    screen.className = "screen";
    pane.append(screen);
  }
  if (screen.dataset.columns !== String(columns)) {
    screen.dataset.columns = columns;
    screen.style.setProperty("--columns", columns);
  }
  return screen;
}
