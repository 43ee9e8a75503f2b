// Drawing: elements that are made once and then kept, and how figures are written. Strings become text,
// never markup.

export const at = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

// el makes an element; children that are null are left out.
export function el(name, attributes = {}, ...children) {
  const svg = name === "svg" || name === "path" || name === "text";
  const e = svg ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [k, v] of Object.entries(attributes)) if (v) e.setAttribute(k, v);
  e.append(...children.filter((c) => c != null));
  return e;
}

// write sets an element's text where it differs: what is selected or being read aloud stays. null leaves it.
export function write(e, text) {
  if (text != null && e.textContent !== text) e.textContent = text;
  return e;
}

// keep makes the children of parent those of items, one a key, and draws each. One that stays is the same
// element, so that focus and selection stay, too.
export function keep(parent, items, key, make) {
  const old = new Map([...parent.children].map((e) => [e.dataset.key, e]));
  items.forEach((item, i) => {
    const k = key(item), e = old.get(k) || make();
    old.delete(k);
    e.dataset.key = k;
    if (parent.children[i] !== e) parent.insertBefore(e, parent.children[i] || null);
    e.draw(item);
  });
  for (const e of old.values()) e.remove();
}

const kinds = {
  good: ["ready", "done", "up"],
  warn: ["preparing", "starting", "joining", "draining", "waiting", "paused"],
  bad: ["backoff", "failed", "unhealthy", "gone"],
};

// mark writes a word with the colour and the sign of a state: nobody needs to see colours to read it.
export function mark(e, state, text) {
  for (const [kind, states] of Object.entries(kinds)) e.classList.toggle(kind, states.includes(state));
  e.dataset.state = state;
  write(e, text);
}

export function link(url) {
  return url.startsWith("http") ? el("a", { href: url, rel: "noopener" }, url) : el("span", {}, url);
}

export const number = (x) => (x < 9.95 ? x.toFixed(1) : String(Math.round(x)));

// latency writes microseconds with a unit, to two digits.
export function latency(us) {
  if (us == null) return "–";
  if (us < 1000) return us + " µs";
  return us < 999500 ? number(us / 1000) + " ms" : number(us / 1e6) + " s";
}

export const clock = (time) => time.toLocaleTimeString([], { hourCycle: "h23" });

// age writes how long ago a time was; Go's zero time is none.
export function age(time) {
  const s = Math.max(0, (Date.now() - Date.parse(time)) / 1000);
  if (time.startsWith("0001")) return "–";
  if (s < 60) return Math.floor(s) + " s";
  return s < 3600 ? Math.floor(s / 60) + " min" : s < 172800 ? Math.floor(s / 3600) + " h" : Math.floor(s / 86400) + " d";
}

// spark is a minute of request rates, a point a second, the newest at the right.
export function spark() {
  const W = 59, H = 20, area = el("path", { class: "area" }), line = el("path", { class: "line" });
  const box = el("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", class: "spark" }, area, line);
  const peak = el("figcaption"), figure = el("figure", {}, box, peak);
  figure.draw = (name, history) => {
    const most = Math.max(0, ...history), top = most || 1;
    const points = history.map((v, i) => `${W - history.length + 1 + i} ${(H - 1 - (v / top) * (H - 2)).toFixed(2)}`);
    line.setAttribute("d", points.length ? "M" + points.join("L") : "");
    area.setAttribute("d", points.length ? `M${W - history.length + 1} ${H}L${points.join("L")}L${W} ${H}Z` : "");
    box.setAttribute("aria-label", `${name}: requests a second in the last minute, ${number(most)} at most`);
    write(peak, most ? `peak ${number(most)}/s` : "no requests in the last minute");
  };
  return figure;
}
