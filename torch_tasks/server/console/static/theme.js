// The colours that this browser's person chose, set before the page is drawn. A classic script: modules come too late.

const CHOICES = ["system", "dark", "light"];

function chosen() {
  try {
    return localStorage.getItem("torch-colours") ?? "system";
  } catch {
    return "system"; // a browser that keeps nothing
  }
}

function paint(choice) {
  if (choice === "system") delete document.documentElement.dataset.colours;
  else document.documentElement.dataset.colours = choice;
}

paint(chosen());
document.addEventListener("DOMContentLoaded", () => {
  const button = document.getElementById("colours");
  if (!button) return;
  const name = (choice) => (button.title = `Colours: ${choice === "system" ? "as the system" : choice}`);
  name(chosen());
  button.hidden = false;
  button.addEventListener("click", () => {
    const next = CHOICES[(CHOICES.indexOf(chosen()) + 1) % CHOICES.length];
    try {
      localStorage.setItem("torch-colours", next);
    } catch {
      // it holds for this page
    }
    paint(next);
    name(next);
  });
});
