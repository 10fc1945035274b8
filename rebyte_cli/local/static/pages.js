// Keep the page up to date, and send what a reader asks for. The server renders everything: this
// fetches the page again and takes over what changed. Without a script, reloading does the same.
"use strict";

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const main = () => document.querySelector("main");
const root = document.documentElement;
// What the server last sent for each part that changes.
const shown = new Map();

function changing(page) {
  localize(page);
  return [...page.querySelectorAll("[data-changes]")].map((part) => [part, part.outerHTML]);
}

// A list gains, loses and keeps items: those that stay are not touched, so that what a reader
// opened stays open.
function takeItems(list) {
  const old = document.getElementById(list.id);
  let place = old?.firstElementChild;
  for (const item of old ? [...list.children] : []) {
    const kept = document.getElementById(item.id) ?? document.adoptNode(item);
    if (kept === place) place = place.nextElementSibling;
    else old.insertBefore(kept, place);
  }
  while (place) {
    const gone = place;
    place = place.nextElementSibling;
    gone.remove();
  }
}

function takePart(part, html) {
  const old = document.getElementById(part.id);
  if (old && old !== part && shown.get(part.id) !== html) {
    for (const opened of old.querySelectorAll("details[id]")) {
      const next = part.querySelector(`#${CSS.escape(opened.id)}`);
      if (next) next.open = opened.open;
    }
    const focused = old.contains(document.activeElement) && document.activeElement.id;
    old.replaceWith(document.adoptNode(part));
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  }
  shown.set(part.id, html);
}

async function load() {
  const url = location.href;
  const answer = await fetch(url, { cache: "no-store" });
  if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
  const next = new DOMParser().parseFromString(await answer.text(), "text/html");
  // Another search may have begun meanwhile.
  if (url !== location.href) return;
  const atEnd = innerHeight + scrollY >= document.body.scrollHeight - 40;
  const followed = main().dataset.running === "true" && main().dataset.stream;
  const parts = changing(next);
  for (const list of next.querySelectorAll("[data-items]")) takeItems(list);
  for (const [part, html] of parts) takePart(part, html);
  document.title = next.title;
  main().dataset.running = next.querySelector("main").dataset.running;
  if (followed && atEnd) scrollTo(0, document.body.scrollHeight);
}

async function refresh() {
  const lost = await load().then(() => false, () => true);
  document.getElementById("lost").hidden = !lost;
}

// Resolve when the stream ends, the server goes away, the run is over or the page is hidden: a
// browser has few connections to one server.
function follow(url) {
  return new Promise((resolve) => {
    const source = new EventSource(url);
    let busy = false, stale = false;
    // Time passes without events, too.
    const timer = setInterval(refresh, 5000);
    const end = () => { source.close(); clearInterval(timer); resolve(); };
    source.onerror = end;
    source.addEventListener("done", end);
    document.addEventListener("visibilitychange", end, { once: true });
    source.addEventListener("event", async () => {
      stale = true;
      if (busy) return;
      busy = true;
      while (stale) {
        stale = false;
        const began = performance.now();
        await refresh();
        await pause(Math.max(200, 3 * (performance.now() - began)));
      }
      busy = false;
    });
  });
}

async function keepUpToDate() {
  for (;;) {
    const running = () => main().dataset.running === "true";
    if (running() && main().dataset.stream && !document.hidden) await follow(main().dataset.stream);
    await pause(1000);
    for (let more = 4; more && !running(); more--) await pause(1000);
    if (!document.hidden) await refresh();
  }
}

// A link with a key lets this browser act, too: with a second key, which only pages of this port
// can read. The cookie goes to every port of the address, so it shows pages and starts nothing.
const ACTIONS = "rebyte-actions";

async function enter() {
  const once = /^#enter=([0-9a-f]+)$/.exec(location.hash);
  if (once) {
    history.replaceState(null, "", location.pathname + location.search);
    const answer = await fetch("/actions", { method: "POST", body: once[1] });
    if (answer.ok) localStorage.setItem(ACTIONS, await answer.text());
  }
  root.classList.toggle("acts", localStorage.getItem(ACTIONS) !== null);
}

function bodyOf(form) {
  if (form.elements.prompt) return { prompt: form.elements.prompt.value };
  if (!form.dataset.message) return {};
  const answers = [...form.querySelectorAll("fieldset")].map((question) => {
    const chosen = [...question.querySelectorAll("input:checked")];
    const selectedOptions = chosen.map((option) => Number(option.value));
    const text = question.querySelector("textarea").value.trim();
    if (!text && !chosen.length) throw new Error("Choose an option, or write an answer.");
    return text ? { selectedOptions, customResponse: text } : { selectedOptions };
  });
  return {
    messageId: form.dataset.message,
    actionId: Number(form.dataset.action),
    answer: answers.length > 1 ? { answers } : answers[0],
  };
}

async function send(form) {
  const headers = {
    "Content-Type": "application/json",
    "Rebyte-Actions": localStorage.getItem(ACTIONS) ?? "",
  };
  const body = JSON.stringify(bodyOf(form));
  const answer = await fetch(form.dataset.post, { method: "POST", headers, body }).catch(() => {
    throw new Error("The service did not answer. Look whether it was done before you try again.");
  });
  if (!answer.ok) throw new Error((await answer.json()).error.message);
}

document.addEventListener("submit", async (event) => {
  event.preventDefault();
  const form = event.target;
  if (!form.dataset.post || (form.dataset.confirm && !confirm(form.dataset.confirm))) return;
  const button = form.querySelector("button"), says = form.querySelector("output");
  button.disabled = true;
  says.textContent = "";
  try {
    await send(form);
    form.reset();
    await refresh();
  } catch (error) {
    says.textContent = error.message;
  }
  button.disabled = false;
});

// The search follows what is typed.
let typed;
document.addEventListener("input", (event) => {
  const form = event.target.closest(".find");
  if (!form) return;
  clearTimeout(typed);
  typed = setTimeout(() => {
    const query = new URLSearchParams(new FormData(form));
    for (const [name, value] of [...query]) if (!value) query.delete(name);
    history.replaceState(null, "", query.size ? `?${query}` : location.pathname);
    refresh();
  }, 200);
});

for (const form of document.querySelectorAll(".find")) form.hidden = false;
for (const [part, html] of changing(document)) shown.set(part.id, html);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
enter();
keepUpToDate();
