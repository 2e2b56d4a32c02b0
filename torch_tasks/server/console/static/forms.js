// Sends the forms that ask for something to be done, and says what came of it where the person is.

const SHOWN_MS = 6000;
let sending = 0; // forms whose outcome has not been shown yet

/** Whether a form is on its way: what this page is about may just be going, so nobody asks for the page now. */
export function isSending() {
  return sending > 0;
}

/** Take over every form with `data-act`, those that come later, too. */
export function sendForms() {
  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.matches("form[data-act]")) return;
    event.preventDefault();
    send(form, event.submitter);
  });
  addEventListener("pageshow", (event) => event.persisted && location.reload()); // somebody came back to a page that was left
}

async function send(form, button) {
  const body = new URLSearchParams(new FormData(form, button));
  const buttons = [...form.querySelectorAll("button")].filter((one) => !one.disabled);
  form.dataset.keep = "sending"; // news must not make it a form that can be sent once more
  for (const one of buttons) one.disabled = true;
  sending += 1;
  const then = await outcome(form, body);
  if (then) return location.assign(then);
  sending -= 1;
  for (const one of buttons) one.disabled = false;
  delete form.dataset.keep;
  document.dispatchEvent(new CustomEvent("torch-done"));
}

/** Send it and show what came of it; the address of the page where its person goes on, if it is another one. */
async function outcome(form, body) {
  try {
    const headers = { "X-Torch-Console": "script" };
    const reply = await fetch(form.action, { method: "POST", body, headers });
    const told = await reply.json();
    say(reply.ok ? told.said : told.detail, !reply.ok);
    showFaults(form, reply.ok ? "" : told.detail);
    if (!reply.ok) return null;
    form.elements._once.value = crypto.randomUUID?.() ?? `${Date.now()} ${Math.random()}`; // the next press is another one
    form.closest("details.sure")?.removeAttribute("open");
    if (form.dataset.act === "reset") form.reset();
    if ("then" in form.dataset) history.replaceState(null, "", form.elements._then.value);
    return told.then;
  } catch {
    say("The server did not answer. Whether it was done is not known: look before you try again.", true);
    return null;
  }
}

/** Mark the fields of a long form that an error names, and go to the first of them. */
function showFaults(form, detail) {
  const place = form.querySelector("[data-trouble]");
  if (!place) return;
  place.textContent = detail;
  place.hidden = !detail;
  const named = new Set([...detail.matchAll(/(?:: |; )([a-z_]+)(?:\.\d+)*(?=: )/g)].map((found) => found[1]));
  const faulty = [...form.elements].filter((one) => named.has(one.name.replace("[]", "")));
  for (const one of form.elements) one.removeAttribute("aria-invalid");
  for (const one of faulty) {
    one.setAttribute("aria-invalid", "true");
    one.closest("details")?.setAttribute("open", "");
  }
  faulty[0]?.focus();
}

/** Tell the person something for a few seconds; screen readers read it out. */
export function say(text, isBad = false) {
  const line = document.createElement("p");
  line.textContent = text;
  if (isBad) line.className = "bad";
  document.getElementById("said").append(line);
  setTimeout(() => line.remove(), isBad ? 4 * SHOWN_MS : SHOWN_MS);
}
