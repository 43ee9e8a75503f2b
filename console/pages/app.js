// The page of a running system. It asks the admin door (docs/admin-api.md) and draws; it decides nothing.
// The key to the door stands behind the # of the address, so that it never travels in a request line.
import { latency, Rates } from "./rates.js";

const key = location.hash.replace(/^#token=/, "") || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", key);
history.replaceState(null, "", location.pathname); // out of sight and of bookmarks

const at = (id) => document.getElementById(id);
const rates = new Rates();
let state = null;

function ask(path) {
  return fetch(path, { headers: { Authorization: "Bearer " + key } }).then((r) => {
    if (!r.ok) throw new Error(r.status === 401 ? "this page needs its key: open it with `servent console`" : "the admin door says " + r.status);
    return r;
  });
}

// el makes an element; strings become text, never markup.
function el(name, attributes = {}, ...children) {
  const e = document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) if (v !== "" && v != null) e.setAttribute(k, v);
  e.append(...children.filter((c) => c != null));
  return e;
}

function trouble(text) {
  at("trouble").hidden = !text;
  at("trouble").textContent = text || "";
}

function link(url) {
  return url.startsWith("http") ? el("a", { href: url, rel: "noopener" }, url) : url;
}

function drawServices() {
  at("services").replaceChildren(...state.services.map((s) => {
    const r = rates.service(s.service);
    const line = el("canvas", { width: 280, height: 52, role: "img", "aria-label": "requests a second, last minute" });
    const row = el("tr", { "data-service": s.service },
      el("td", {}, s.service), el("td", {}, s.architecture),
      el("td", {}, ...(s.urls.length ? s.urls.flatMap((u, i) => (i ? [el("br"), link(u)] : [link(u)])) : ["internal"])),
      el("td", { class: s.ready < s.wanted ? "starting" : "ready" }, `${s.ready} of ${s.wanted}`),
      el("td", { class: "n rate" }, r.requests.toFixed(1)), el("td", { class: r.errors > 0 ? "n failed" : "n" }, r.errors.toFixed(1)),
      el("td", { class: "n" }, latency(r.p50)), el("td", { class: "n" }, latency(r.p99)), el("td", {}, line));
    spark(line, r.history);
    return row;
  }));
}

function drawNodes() {
  at("nodes").replaceChildren(...state.nodes.map((n) => {
    const here = state.instances.filter((i) => i.node === n.node);
    const facts = [n.role, "site " + n.site, n.capacity.rate ? n.capacity.rate + "/s emulated" : null, n.pid ? "pid " + n.pid : null];
    return el("article", { class: n.state === "up" ? "node" : "node gone" },
      el("h3", {}, n.node, el("span", {}, n.state)), el("p", {}, facts.filter(Boolean).join(" · "), n.why ? " · " + n.why : ""),
      ...here.map((i) => el("span", { class: "chip " + i.state, title: i.state + (i.why ? ": " + i.why : "") + "\n" + i.reason }, i.instance)));
  }));
}

function drawInstances() {
  at("instances").replaceChildren(...state.instances.map((i) => el("tr", {},
    el("td", {}, i.instance), el("td", {}, i.node), el("td", { class: i.state }, i.state), el("td", { class: "n" }, String(i.restarts)),
    el("td", { class: "n" }, rates.instance(i.instance).requests.toFixed(1)), el("td", { class: "words" }, i.reason), el("td", { class: "words" }, i.why || ""))));
}

function draw() {
  if (!state) return;
  document.title = (state.system || "Servent") + " · Servent";
  at("name").textContent = state.system || "Servent";
  const kind = state.nodes.some((n) => n.emulated) ? "EMULATED nodes on this machine" : "real nodes";
  at("context").textContent = `${state.context} · ${kind} · plan ${state.generation} · ${state.settled ? "settled" : "settling"}`;
  const refused = state.refused.map((r) => `${r.service} lacks ${r.missing}: ${r.reason}`);
  trouble([state.control ? "control does not answer: " + state.control + "; requests go on" : "", ...refused].filter(Boolean).join(" — "));
  drawServices();
  drawNodes();
  drawInstances();
}

// spark draws one minute of request rates, one point a second.
function spark(canvas, history) {
  const g = canvas.getContext("2d"), { width: w, height: h } = canvas, top = Math.max(1, ...history);
  g.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue("--blue");
  g.lineWidth = 2;
  g.beginPath();
  history.forEach((v, i) => g.lineTo(w - (history.length - 1 - i) * (w / 59), h - 2 - (v / top) * (h - 4)));
  g.stroke();
}

// lines calls each with every JSON document of an answer that goes on.
async function lines(path, each) {
  const reader = (await ask(path)).body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const p of parts) if (p) each(JSON.parse(p));
  }
}

// forever keeps an answer open, also after the door was away.
async function forever(path, each) {
  for (; ;) {
    try {
      await lines(path, each);
      trouble("the system has ended, or its door is away; trying again");
    } catch (e) {
      trouble(String(e.message || e));
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

function event(e) {
  const list = at("events"), time = new Date(e.time);
  if (list.firstChild && list.firstChild.dataset.time >= e.time) return; // seen before the door was away
  const item = el("li", { "data-time": e.time }, el("time", { datetime: e.time }, time.toLocaleTimeString()), e.text);
  list.prepend(item);
  while (list.children.length > 200) list.lastChild.remove();
}

async function measure() {
  for (; ;) {
    try {
      rates.take(await (await ask("/v1/meter")).json());
      draw();
    } catch { /* the watch says what is wrong */ }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

forever("/v1/watch", (s) => { state = s; draw(); });
forever("/v1/events?follow=true", event);
measure();
