// Makes an element show new content and keeps what has not changed: focus, scroll, what was typed, what was opened.

/** Make the children of `old` those of `fresh`; an element stays the one that it is if its id, or its sort and place
 * among those of its sort, is the same. */
export function morph(old, fresh) {
  const known = byKey(old), wanted = byKey(fresh);
  for (const [key, node] of known) {
    if (!wanted.has(key)) node.remove();
  }
  let place = old.firstChild;
  for (const [key, next] of wanted) {
    const same = known.get(key);
    if (same !== place || !same) old.insertBefore(same ?? next, place);
    else place = place.nextSibling;
    if (same) renew(same, next);
  }
}

/** Text belongs to the element before it: where one goes, its text goes, and none that stays has to move. */
function byKey(parent) {
  const found = new Map(), seen = new Map();
  let before = "";
  for (const node of parent.childNodes) {
    const isElement = node.nodeType === Node.ELEMENT_NODE;
    const sort = isElement ? `${node.nodeName} ${node.classList[0] ?? ""}` : `${node.nodeName} after ${before}`;
    const count = seen.get(sort) ?? 0;
    if (!node.id) seen.set(sort, count + 1);
    const key = node.id ? `#${node.id}` : `${sort} ${count}`;
    if (isElement) before = key;
    found.set(key, node);
  }
  return found;
}

function renew(same, next) {
  if (same.nodeType !== Node.ELEMENT_NODE) {
    if (same.nodeValue !== next.nodeValue) same.nodeValue = next.nodeValue;
    return;
  }
  if (same.isEqualNode(next) || same.hasAttribute("data-keep")) return;
  for (const { name } of [...same.attributes]) {
    const isOpen = name === "open" && same.nodeName === "DETAILS"; // whoever opened it closes it
    if (!isOpen && !next.hasAttribute(name)) same.removeAttribute(name);
  }
  for (const { name, value } of next.attributes) {
    if (same.getAttribute(name) !== value) same.setAttribute(name, value);
  }
  if (same.nodeName === "TEXTAREA") return; // what somebody types is theirs
  morph(same, next);
}
