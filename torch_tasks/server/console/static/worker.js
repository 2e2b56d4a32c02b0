// The service worker: the console's own files at hand, a short page while the server is away, and notifications.
// It keeps no page and no data: what it shows of the fleet comes from the server each time.

const FILES = "torch-files";
const AWAY = "/static/away.html";
const AT_HAND = [AWAY, "/static/console.css", "/static/torch.svg"];

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(FILES).then((files) => files.addAll(AT_HAND)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.mode === "navigate") event.respondWith(fetch(request).catch(() => caches.match(AWAY)));
  else if (origin === self.location.origin && request.method === "GET" && pathname.startsWith("/static/")) {
    event.respondWith(newest(request));
  }
});

/** The file as the server has it now, or as it was when the server last answered. */
async function newest(request) {
  try {
    const reply = await fetch(request);
    if (reply.ok) (await caches.open(FILES)).put(request, reply.clone());
    return reply;
  } catch (error) {
    const kept = await caches.match(request);
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("push", (event) => {
  const told = event.data?.json() ?? {};
  const options = { body: told.body, tag: told.tag, icon: "/static/icon-192.png", data: { url: told.url ?? "/" } };
  event.waitUntil(self.registration.showNotification(told.title ?? "Torch", options));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(open(event.notification.data.url));
});

/** The page that it is about, in a window that is there, or in a new one. */
async function open(url) {
  const [window] = await self.clients.matchAll({ type: "window" });
  if (!window) return self.clients.openWindow(url);
  await window.navigate(url);
  return window.focus();
}
