// What every page of the console does: it shows news without a reload, and sends forms without leaving the page.

import { follow } from "./news.js";
import { showTimes } from "./times.js";
import { sendForms } from "./forms.js";

showTimes(document);
setInterval(() => showTimes(document), 5000);
sendForms();
follow(document.getElementById("content"));
