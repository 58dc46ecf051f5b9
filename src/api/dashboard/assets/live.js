// Keeps an open page true. Everything here is convenience: each page reads, and each form works, without it.
//
// The server says that something has changed; the page then fetches itself and takes over what is different, leaving
// focus, selection, scrolling and what is being typed alone.

const main = document.getElementById("main");
const news = document.getElementById("news");
const mark = document.getElementById("mark");
const GATHER = 120; // ms: changes that come close together are fetched once
const PAUSE = 600; // ms between two fetches, however much happens
const LINES = 2000; // lines of a log that are kept

// Taking over what is different

const parser = new DOMParser();
const keyOf = (node) => (node.nodeType === 1 ? node.id : "");
const alike = (a, b) => a.nodeType === b.nodeType && a.nodeName === b.nodeName && keyOf(a) === keyOf(b);

function becomes(old, now) {
  if (old.nodeType !== 1) {
    if (old.nodeValue !== now.nodeValue) old.nodeValue = now.nodeValue;
    return;
  }
  if (old.hasAttribute("data-keep") && now.hasAttribute("data-keep")) return;
  if (old.nodeName === "FORM" && old.contains(document.activeElement)) return;
  for (const { name } of [...old.attributes]) if (!now.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of now.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  childrenBecome(old, now);
}

function childrenBecome(old, now) {
  const known = new Map();
  for (const child of old.children) if (child.id) known.set(child.id, child);
  let at = old.firstChild;
  for (const wanted of [...now.childNodes]) {
    const id = keyOf(wanted);
    if (id && known.has(id) && known.get(id) !== at) old.insertBefore(known.get(id), at), (at = known.get(id));
    if (at && alike(at, wanted)) {
      const next = at.nextSibling;
      becomes(at, wanted);
      at = next;
    } else {
      old.insertBefore(document.importNode(wanted, true), at);
    }
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

let fetching = false;
let again = false;

async function refresh(address = location.href) {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" }, redirect: "manual" });
    if (answer.type === "opaqueredirect") return location.reload();
    if (answer.headers.get("content-type")?.startsWith("text/html")) {
      const page = parser.parseFromString(await answer.text(), "text/html");
      const wanted = page.getElementById("main");
      if (wanted) {
        becomes(main, wanted);
        document.title = page.title;
        followLogs();
      }
    }
  } catch {
    // The agent is away; the stream notices, and its return brings the page up to date.
  } finally {
    await new Promise((done) => setTimeout(done, PAUSE));
    fetching = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

let gathering;
function refreshSoon() {
  clearTimeout(gathering);
  gathering = setTimeout(refresh, GATHER);
}

// Being told

let stream;
let told = false;

function say(state) {
  mark.hidden = false;
  mark.classList.toggle("live", state === "live");
  mark.querySelector(".word").textContent = state;
}

function listen() {
  stream?.close();
  stream = new EventSource("/ui/live");
  stream.onopen = () => {
    say("live");
    // Whatever happened in between was not told.
    if (told) refreshSoon();
    told = true;
  };
  stream.onerror = () => {
    say("reconnecting");
    told = true;
    if (stream.readyState === EventSource.CLOSED) setTimeout(listen, 2000);
  };
  stream.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.kind === "fact") return show(message);
    const about = main.dataset.about;
    if (!about || !message.apps || message.apps.includes(about)) refreshSoon();
  };
}

function show({ words, tone }) {
  const line = document.createElement("p");
  line.className = tone;
  line.textContent = words.split("\n")[0].slice(0, 240);
  news.append(line);
  while (news.children.length > 4) news.firstChild.remove();
  setTimeout(() => line.remove(), 8000);
}

// A page nobody looks at needs no connection: browsers allow only six to one host.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    stream?.close();
    for (const log of document.querySelectorAll("[data-follow]")) log.stream?.close();
  } else {
    listen();
    for (const log of document.querySelectorAll("[data-follow]")) follow(log);
  }
});

let beats = 0;
setInterval(() => {
  beats += 1;
  if (beats % 5 === 0) tellTimes();
  const every = Number(main.dataset.every);
  if (every && beats % every === 0 && !document.hidden) refreshSoon();
}, 1000);

// Times

function distance(at) {
  const seconds = Math.trunc((Date.now() - at) / 1000);
  const length = Math.abs(seconds);
  if (length < 5) return seconds < 0 ? "in a moment" : "just now";
  const words =
    length < 60 ? `${length} s` : length < 3600 ? `${Math.trunc(length / 60)} min` : length < 86400 ? `${Math.trunc(length / 3600)} h` : `${Math.trunc(length / 86400)} d`;
  return seconds < 0 ? `in ${words}` : `${words} ago`;
}

function tellTimes() {
  for (const time of document.querySelectorAll("time[data-ago]")) {
    const words = distance(Date.parse(time.dateTime));
    if (time.textContent !== words) time.textContent = words;
  }
}

// Logs

function follow(log) {
  log.stream?.close();
  log.address = log.dataset.follow;
  log.stream = new EventSource(log.address);
  // What is there already comes again.
  log.stream.onopen = () => log.replaceChildren();
  log.stream.onmessage = ({ data }) => {
    const { at, source, version, object, instance, line } = JSON.parse(data);
    const low = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    const row = document.createElement("div");
    row.className = `line ${["stderr", "system"].includes(source) ? source : "stdout"}`;
    const time = document.createElement("time");
    time.dateTime = time.title = at;
    time.textContent = at.slice(11, 23).replace("Z", "");
    const from = document.createElement("span");
    from.className = "from";
    from.title = instance;
    from.textContent = `${object} v${version}`;
    const text = document.createElement("span");
    text.className = "text";
    text.textContent = line;
    row.append(time, " ", from, " ", text);
    log.append(row);
    if (log.children.length > LINES) log.firstChild.remove();
    if (low) log.scrollTop = log.scrollHeight;
  };
}

function followLogs() {
  for (const log of document.querySelectorAll("[data-follow]")) if (log.address !== log.dataset.follow) follow(log);
}

// Filtering while typing, and light or dark without a new page

let typing;
document.addEventListener("input", ({ target }) => {
  if (!target.matches("[data-filter]")) return;
  clearTimeout(typing);
  typing = setTimeout(() => {
    const address = `${target.form.getAttribute("action")}?${new URLSearchParams(new FormData(target.form))}`;
    history.replaceState(null, "", address);
    refresh();
  }, 150);
});

document.addEventListener("submit", (event) => {
  const { target, submitter } = event;
  if (!target.matches(".theme") || !submitter) return;
  event.preventDefault();
  document.documentElement.dataset.theme = submitter.value;
  document.cookie = `landfall_theme=${submitter.value}; Path=/; Max-Age=31536000; SameSite=Strict`;
  for (const button of target.querySelectorAll("button")) button.setAttribute("aria-pressed", String(button === submitter));
});

for (const log of document.querySelectorAll(".log")) log.scrollTop = log.scrollHeight;
listen();
followLogs();
