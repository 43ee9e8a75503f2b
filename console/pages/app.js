// The page of a running system. It asks the admin door (docs/admin-api.md) and draws; it decides nothing.
// The key to the door stands behind the # of the address, so that it never travels in a request line.
import { Rates } from "./rates.js";
import { age, at, clock, el, keep, latency, link, mark, number, spark, write } from "./draw.js";

const key = location.hash.replace(/^#token=/, "") || sessionStorage.getItem("token") || "";
sessionStorage.setItem("token", key);
history.replaceState(null, "", location.pathname); // out of sight and of bookmarks

const EVENTS = 200; // shown
const rates = new Rates();
let state = null, away = ""; // away: why the door does not answer

async function ask(path) {
  const r = await fetch(path, { headers: { Authorization: "Bearer " + key } });
  if (r.status === 401) throw new Error("this page needs its key: open it with `servent console`");
  if (!r.ok) throw new Error(`the admin door says ${r.status} to ${path}`);
  return r;
}

function service() {
  const name = el("h3"), kind = el("span", { class: "quiet" }), ready = el("span", { class: "mark" }), urls = el("p", { class: "urls" });
  const curve = spark(), figures = el("dl"), value = {};
  for (const [id, word] of [["rate", "requests/s"], ["errors", "errors/s"], ["p50", "p50"], ["p99", "p99"]])
    figures.append(el("div", {}, el("dt", {}, word), value[id] = el("dd", { class: id })));
  const card = el("article", { class: "card" }, el("header", {}, name, kind, ready), urls, curve, figures);
  card.draw = (s) => {
    const r = rates.service(s.service);
    card.dataset.service = s.service;
    write(name, s.service);
    write(kind, s.architecture);
    mark(ready, s.ready < s.wanted ? "starting" : "ready", `${s.ready} of ${s.wanted} ready`);
    if (urls.dataset.of !== (urls.dataset.of = s.urls.join(" "))) urls.replaceChildren(...s.urls.map(link));
    write(urls, s.urls.length ? null : "internal");
    write(value.rate, number(r.requests));
    write(value.errors, number(r.errors)).classList.toggle("failed", r.errors > 0);
    write(value.p50, latency(r.p50));
    write(value.p99, latency(r.p99));
    curve.draw(s.service, r.history);
  };
  return card;
}

function node() {
  const name = el("h3"), word = el("span", { class: "mark" }), facts = el("p", { class: "quiet" }), why = el("p", { class: "why" }), chips = el("ul", { class: "chips" });
  const card = el("article", { class: "card" }, el("header", {}, name, word), facts, why, chips);
  card.draw = (n) => {
    const here = state.instances.filter((i) => i.node === n.node);
    const served = here.reduce((sum, i) => sum + rates.instance(i.instance).requests, 0), { rate, workers } = n.capacity;
    card.dataset.node = n.node;
    card.classList.toggle("gone", n.state !== "up");
    write(name, n.node);
    mark(word, n.state, n.state);
    write(facts, [n.role, "site " + n.site, rate && `${workers > 1 ? workers + " × " : ""}${rate}/s emulated`, `${number(served)} requests/s`].filter(Boolean).join(" · "));
    write(why, [n.why || rates.silent(n.node), ...(n.alarms || []).map((a) => a.text)].filter(Boolean).join("; "));
    keep(chips, here, (i) => i.instance, () => {
      const chip = el("li", { class: "mark" });
      chip.draw = (i) => {
        mark(chip, i.state, i.instance);
        chip.title = `${i.instance} is ${i.state}${i.why ? ": " + i.why : ""}`;
        chip.setAttribute("aria-label", chip.title);
      };
      return chip;
    });
  };
  return card;
}

function instance() {
  const cell = (label, kind) => el("td", { role: "cell", "data-label": label, class: kind });
  const id = el("th", { role: "rowheader", scope: "row" }), on = cell("node"), word = el("span", { class: "mark" }), why = el("p", { class: "why" }), next = el("code");
  const since = cell("since", "n"), restarts = cell("restarts", "n"), rate = cell("requests/s", "n"), reason = cell("why there", "words"), state = cell("state");
  state.append(word, why, next);
  const row = el("tr", { role: "row" }, id, on, state, since, restarts, rate, reason);
  row.draw = (i) => {
    row.dataset.instance = i.instance;
    write(id, i.instance);
    write(on, i.node);
    mark(word, i.state, i.state);
    write(why, i.why || "");
    write(next, i.next || "");
    write(since, age(i.since));
    write(restarts, String(i.restarts));
    write(rate, number(rates.instance(i.instance).requests));
    write(reason, i.reason);
  };
  return row;
}

function draw() {
  const trouble = away ? [away] : [];
  document.body.classList.toggle("away", away !== "");
  if (state) {
    const up = state.nodes.filter((n) => n.state === "up").length, ready = state.services.reduce((n, s) => n + s.ready, 0);
    const kind = state.nodes.some((n) => n.emulated) ? "emulated nodes on this machine" : "real nodes", name = state.system || "Servent";
    document.title = name === "Servent" ? name : name + " · Servent";
    write(at("name"), name);
    write(at("facts"), `${up} of ${state.nodes.length} nodes up · ${ready} of ${state.services.reduce((n, s) => n + s.wanted, 0)} instances ready · ${kind} · plan ${state.generation}${state.survives && state.nodes.length > 1 ? " · " + state.survives : ""}`);
    if (state.control) trouble.push(`control does not answer (${state.control}); this is the last that was seen, and requests go on`);
    for (const r of state.refused) trouble.push(`${r.service} lacks ${r.missing} ${r.missing === 1 ? "instance" : "instances"}: ${r.reason}`);
    if (!state.services.length && !away) trouble.push("nothing is wanted: `servent up` beside your file");
    keep(at("services"), state.services, (s) => s.service, service);
    keep(at("nodes"), state.nodes, (n) => n.node, node);
    keep(at("instances"), state.instances, (i) => `${i.instance} ${i.node}`, instance);
  }
  mark(at("status"), away || !state ? "gone" : state.control ? "waiting" : state.settled ? "ready" : "starting",
    away ? "not connected" : !state ? "connecting" : state.control ? "control is away" : state.settled ? "settled" : "settling");
  write(at("trouble"), trouble.join("\n")).hidden = !trouble.length;
}

let drawn = 0;
function drawSoon() { drawn ||= requestAnimationFrame(() => { drawn = 0; draw(); }); }

function event(e) {
  const time = new Date(e.time), subject = e.instance || e.service || e.node || e.kind;
  at("events").prepend(el("li", { "data-kind": e.kind },
    el("time", { datetime: e.time, title: time.toLocaleString() }, clock(time)), el("b", {}, subject), el("span", {}, e.text),
    e.node && e.node !== subject ? el("span", { class: "quiet" }, e.node) : null));
  if (at("events").children.length > EVENTS) at("events").lastChild.remove();
}

// lines calls each with every JSON document of an answer that goes on, and begin before the first.
async function lines(path, begin, each) {
  const reader = (await ask(path)).body.pipeThrough(new TextDecoderStream()).getReader();
  begin();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const p of parts) if (p) each(JSON.parse(p));
  }
}

// forever asks again and again, a second after each end; trouble gets why it ended.
async function forever(ask, trouble) {
  for (; ;) {
    try {
      await ask();
      trouble("");
    } catch (e) {
      trouble(e instanceof TypeError ? "the admin door does not answer" : String(e.message || e)); // fetch fails with a TypeError
    }
    await new Promise((done) => setTimeout(done, 1000));
  }
}

const unheard = () => { }; // the watch says what is wrong
forever(() => lines("/v1/watch", () => { away = ""; }, (s) => { state = s; drawSoon(); }),
  (why) => { away = `${why || "the system ended"}; trying again. After a new \`servent up\`: \`servent console\``; drawSoon(); });
forever(() => lines("/v1/events?follow=true", () => at("events").replaceChildren(), event), unheard);
forever(async () => { rates.take(await (await ask("/v1/meter")).json()); drawSoon(); }, unheard);
draw();
