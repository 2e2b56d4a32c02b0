// What every page of the console does: it shows news without a reload, and sends forms without leaving the page.

import { follow } from "./news.js";
import { typeIntoPanes } from "./typing.js";
import { showTimes } from "./times.js";
import { sendForms } from "./forms.js";
import { listenToKeys } from "./keys.js";
import { reachWide } from "./places.js";
import { offerPush, showNeed } from "./push.js";
import { showPanes } from "./panes.js";
import { followFilters } from "./filters.js";

showTimes(document);
setInterval(() => showTimes(document), 5000);
sendForms();
followFilters();
follow(document.getElementById("content"));
listenToKeys();
reachWide();
document.addEventListener("torch-shown", () => reachWide());
showNeed();
offerPush();
navigator.serviceWorker?.register("/static/worker.js", { scope: "/" }).catch(() => {}); // a private window keeps none
showPanes();
typeIntoPanes();
