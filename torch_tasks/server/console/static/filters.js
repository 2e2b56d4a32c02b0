// What chooses what a page shows: the address follows, so that it can be linked, reloaded and gone back from.

const TYPING_MS = 250;

/** Take over every form with `data-filter`, and every link with `data-here`. */
export function followFilters() {
  let timer = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-here]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    history.replaceState(null, "", link.href);
    document.dispatchEvent(new CustomEvent("torch-elsewhere"));
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("form[data-filter]")) return;
    event.preventDefault();
    clearTimeout(timer);
    show(event.target, "pushState");
  });
  document.addEventListener("change", (event) => {
    const form = event.target.form;
    if (form?.matches("form[data-filter]") && event.target.matches("select")) form.requestSubmit();
  });
  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (!form?.matches("form[data-filter]") || !event.target.matches("input")) return;
    clearTimeout(timer);
    timer = setTimeout(() => show(form, "replaceState"), TYPING_MS);
  });
  window.addEventListener("popstate", () => location.reload());
}

function show(form, how) {
  const chosen = [...new FormData(form)].filter(([, value]) => value !== "");
  const address = new URL(form.action);
  address.search = new URLSearchParams(chosen);
  if (address.href === location.href) return;
  history[how](null, "", address);
  document.dispatchEvent(new CustomEvent("torch-elsewhere"));
}
