// Keep the page up to date while something runs. The server renders everything: this fetches the
// page again and takes over what changed. Without a script, reloading does the same.
"use strict";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const main = () => document.querySelector("main");

function remove(item) {
  const next = item.nextElementSibling;
  item.remove();
  return next;
}

async function refresh() {
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
  // Lists gain and lose items; the others stay, so that opened details stay open.
  for (const list of next.querySelectorAll("[data-items]")) {
    const old = document.getElementById(list.id);
    if (!old) continue;
    let place = old.firstElementChild;
    for (const item of [...list.children]) {
      const known = document.getElementById(item.id);
      if (known) {
        while (place !== known) place = remove(place);
        place = known.nextElementSibling;
      } else {
        old.insertBefore(document.adoptNode(item), place);
      }
    }
    while (place) place = remove(place);
  }
  // What changes is replaced.
  for (const part of [...next.querySelectorAll("[data-changes]")]) {
    const old = document.getElementById(part.id);
    if (old && old.outerHTML !== part.outerHTML) old.replaceWith(document.adoptNode(part));
  }
  document.title = next.title;
  main().dataset.running = next.querySelector("main").dataset.running;
  if (main().dataset.stream && atEnd) scrollTo(0, document.body.scrollHeight);
}

// Resolve when the stream ends, the server goes away, or the run is over.
function follow(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    let busy = false, stale = false;
    const end = () => { source.close(); resolve(); };
    source.onerror = end;
    source.addEventListener("done", end);
    source.addEventListener("event", async () => {
      stale = true;
      if (busy) return;
      busy = true;
      while (stale) {
        stale = false;
        const began = performance.now();
        await refresh().catch(() => {});
        await pause(Math.max(200, 3 * (performance.now() - began)));
      }
      busy = false;
    });
  });
}

async function keepUpToDate() {
  while (main().dataset.running === "true") {
    if (main().dataset.stream) await follow(main().dataset.stream);
    await pause(1000);
    if (!document.hidden) await refresh().catch(() => {});
  }
}

keepUpToDate();
// A follow-up may have begun while the page was in the background.
document.addEventListener("visibilitychange", async () => {
  if (document.hidden || main().dataset.running === "true") return;
  await refresh().catch(() => {});
  keepUpToDate();
});
