// Keeps what is wide or long reachable without a mouse.

/** Every part that scrolls sideways can be focused, so that the keys of the cursor scroll it, and says what it is. */
export function reachWide(root = document) {
  for (const part of root.querySelectorAll(".wide, pre")) {
    if (part.scrollWidth <= part.clientWidth && part.scrollHeight <= part.clientHeight) continue;
    part.tabIndex = 0;
    part.setAttribute("role", "region");
    if (!part.hasAttribute("aria-label")) part.setAttribute("aria-label", "Wider than the page: scroll it");
  }
}
