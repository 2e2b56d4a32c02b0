// Makes an element show new content and keeps what has not changed: focus, scroll, what was typed, what was opened.

/** Make the children of `old` those of `fresh`; elements with an id stay the elements that they are. */
export function morph(old, fresh) {
  const known = new Map([...old.children].filter((one) => one.id).map((one) => [one.id, one]));
  let place = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const same = next.id ? known.get(next.id) : isLike(place, next) ? place : null;
    if (!same) {
      old.insertBefore(next, place);
      continue;
    }
    if (same === place) place = place.nextSibling;
    else old.insertBefore(same, place);
    renew(same, next);
  }
  while (place) {
    const after = place.nextSibling;
    place.remove();
    place = after;
  }
}

function isLike(one, other) {
  return one && one.nodeType === other.nodeType && one.nodeName === other.nodeName && !one.id;
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
