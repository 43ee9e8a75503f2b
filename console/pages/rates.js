// Rates turns nodes' totals into what happened lately: totals grow, so the difference of two answers is
// what was counted between them. A node that counts less than before was started anew. A request is
// counted by the node that it entered by, so nodes add up.

const LATELY = 5, MINUTE = 60; // answers, one a second

// minus is row - before, latency bins included; bins are [microseconds, count], sorted.
export function minus(row, before) {
  if (!before || row.requests < before.requests || row.refused < before.refused) before = { requests: 0, errors: 0, refused: 0 };
  const old = new Map(before.latency || []);
  const bins = (row.latency || []).map(([us, n]) => [us, n - (old.get(us) || 0)]).filter(([, n]) => n > 0);
  const refused = row.refused - before.refused; // by no instance: an error to who asked
  return { requests: row.requests - before.requests + refused, errors: row.errors - before.errors + refused, bins };
}

// quantile is the latency in microseconds that a share q of all do not exceed; null when there are none.
export function quantile(bins, q) {
  const all = bins.reduce((sum, [, n]) => sum + n, 0);
  let rank = Math.max(1, Math.ceil(q * all - 1e-6));
  for (const [us, n] of bins) if ((rank -= n) <= 0) return us;
  return null;
}

const nothing = { requests: 0, errors: 0, p50: null, p99: null, history: [] };

export class Rates {
  #before = new Map(); // node → {time, rows}
  #silent = new Map(); // node → why it did not answer
  #services = new Map(); // name → Series
  #instances = new Map();

  service(name) { return this.#services.get(name)?.figures() || nothing; }
  instance(id) { return this.#instances.get(id)?.figures() || nothing; }
  silent(node) { return this.#silent.get(node); }

  // take reads an answer of /v1/meter.
  take(nodes) {
    this.#silent = new Map(nodes.filter((n) => n.error).map((n) => [n.node, "does not say what it counts: " + n.error]));
    const services = new Map(), instances = new Map(), name = (r) => `${r.service} ${r.instance || ""}`;
    for (const { node, at, rows, error } of nodes) {
      if (error) continue;
      const before = this.#before.get(node), time = Date.parse(at);
      this.#before.set(node, { time, rows: new Map(rows.map((r) => [name(r), r])) });
      if (!before || time <= before.time) continue;
      for (const row of rows) {
        const d = minus(row, before.rows.get(name(row))), seconds = (time - before.time) / 1000;
        add(services, row.service, d, seconds);
        if (row.instance) add(instances, row.instance, d, seconds);
      }
    }
    push(this.#services, services);
    push(this.#instances, instances);
  }
}

function add(sums, name, d, seconds) {
  const sum = sums.get(name) || { requests: 0, errors: 0, bins: [] };
  sum.requests += d.requests / seconds;
  sum.errors += d.errors / seconds;
  sum.bins.push(...d.bins);
  sums.set(name, sum);
}

// push gives every series its next second. One that was silent for a minute is forgotten.
function push(all, sums) {
  for (const name of new Set([...sums.keys(), ...all.keys()])) {
    const s = all.get(name) || new Series();
    s.push(sums.get(name) || { requests: 0, errors: 0, bins: [] });
    if (s.quiet) all.delete(name);
    else all.set(name, s);
  }
}

class Series {
  #history = []; // requests a second
  #lately = [];

  push(sum) {
    this.#history = [...this.#history, sum.requests].slice(-MINUTE);
    this.#lately = [...this.#lately, sum].slice(-LATELY);
  }

  get quiet() { return this.#history.length === MINUTE && this.#history.every((v) => v === 0); }

  figures() {
    const bins = this.#lately.flatMap((s) => s.bins).sort((a, b) => a[0] - b[0]);
    const mean = (of) => this.#lately.reduce((sum, s) => sum + of(s), 0) / this.#lately.length;
    return { requests: mean((s) => s.requests), errors: mean((s) => s.errors), p50: quantile(bins, 0.5), p99: quantile(bins, 0.99), history: this.#history };
  }
}
