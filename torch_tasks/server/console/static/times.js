// Times as the person's own clock shows them.

const UNITS = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];

/** Write every `<time>` in local time, and count on those that say how long ago something was. */
export function showTimes(root) {
  for (const one of root.querySelectorAll("time[data-local]")) {
    write(one, new Date(one.dateTime).toLocaleString([], { dateStyle: "medium", timeStyle: "medium" }));
  }
  for (const one of root.querySelectorAll("time[data-ago]")) {
    const moment = new Date(one.dateTime);
    write(one, `${inWords(Math.max(0, (Date.now() - moment) / 1000))} ago`);
    one.title = moment.toLocaleString();
  }
}

function inWords(seconds) {
  const [unit, size] = UNITS.find(([, one]) => seconds >= one) ?? UNITS.at(-1);
  return `${Math.floor(seconds / size)} ${unit}`;
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
