// Shows live terminals: one stream for all that a window has, and only of those that are in view.

const SETTLE_MS = 250;
const inView = new Set();
let stream = null;
let shown = ""; // what the open stream is for
let timer = null;
const looking = new IntersectionObserver((seen) => {
  for (const one of seen) one.isIntersecting ? inView.add(one.target) : inView.delete(one.target);
  plan();
});

/** Show every element with `data-pane`, those that come later, too. */
export function showPanes() {
  find();
  document.addEventListener("torch-shown", find);
  document.addEventListener("visibilitychange", plan);
}

function find() {
  for (const one of document.querySelectorAll("[data-pane]")) {
    one.dataset.keep = ""; // its content is from the stream
    looking.observe(one);
  }
  plan();
}

function plan() {
  clearTimeout(timer);
  timer = setTimeout(follow, SETTLE_MS);
}

function follow() {
  for (const one of inView) if (!one.isConnected) inView.delete(one);
  const panes = document.hidden ? [] : [...inView];
  const small = panes.every((one) => one.classList.contains("thumb"));
  const agents = [...new Set(panes.map((one) => one.dataset.pane))].sort().join(",");
  const wanted = agents && `/panes?agents=${encodeURIComponent(agents)}${small ? "&thumb=1" : ""}`;
  if (wanted === shown) return;
  stream?.close();
  stream = null;
  shown = wanted;
  if (!wanted) return;
  stream = new EventSource(wanted);
  stream.onopen = () => panes.forEach((one) => delete one.dataset.rows);
  stream.addEventListener("pane", (event) => show(JSON.parse(event.data)));
}

function show(news) {
  for (const one of inView) if (one.dataset.pane === news.agent) draw(one, news);
}

function draw(pane, { columns, count, rows, trouble }) {
  const screen = rowsOf(pane, columns);
  while (screen.children.length > count) screen.lastChild.remove();
  while (screen.children.length < count) {
    const row = document.createElement("div");
    row.className = "row";
    screen.append(row);
  }
  for (const [at, html] of Object.entries(rows)) screen.children[at].innerHTML = html; // escaped by the server
  pane.classList.toggle("stale", trouble !== "");
  let note = pane.querySelector(":scope > .trouble");
  if (!trouble) return note?.remove();
  if (!note) pane.prepend((note = Object.assign(document.createElement("p"), { className: "trouble" })));
  note.textContent = trouble;
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
