// Rates turns nodes' totals into what happened lately: totals grow, so the difference of two answers is
// what was counted between them. A node that counts less than before was started anew.

// minus is row - before, latency bins included; bins are [microseconds, count], sorted.
export function minus(row, before) {
  if (!before || row.requests < before.requests) before = { requests: 0, errors: 0, latency: [] };
  const old = new Map(before.latency || []);
  const bins = (row.latency || []).map(([us, n]) => [us, n - (old.get(us) || 0)]).filter(([, n]) => n > 0);
  return { requests: row.requests - before.requests, errors: row.errors - before.errors, bins };
}

// quantile is the latency in microseconds that a share q of all do not exceed; null when there are none.
export function quantile(bins, q) {
  const all = bins.reduce((sum, [, n]) => sum + n, 0);
  let rank = Math.max(1, Math.ceil(q * all - 1e-6));
  for (const [us, n] of bins) if ((rank -= n) <= 0) return us;
  return null;
}

// latency writes microseconds with a unit.
export function latency(us) {
  if (us == null) return "–";
  if (us < 1000) return us + " µs";
  return us < 1e6 ? (us / 1000).toPrecision(2) + " ms" : (us / 1e6).toPrecision(2) + " s";
}

const nothing = { requests: 0, errors: 0, p50: null, p99: null, history: [] };

export class Rates {
  #before = new Map(); // node → {at, rows}
  #services = new Map();
  #instances = new Map();

  service(name) { return this.#services.get(name) || nothing; }
  instance(id) { return this.#instances.get(id) || nothing; }

  // take reads an answer of /v1/meter.
  take(nodes) {
    const services = new Map(), instances = new Map();
    for (const { node, at, rows } of nodes) {
      const before = this.#before.get(node), time = Date.parse(at);
      const name = (r) => r.service + " " + (r.instance || "");
      this.#before.set(node, { time, rows: new Map((rows || []).map((r) => [name(r), r])) });
      if (!before || time <= before.time) continue;
      for (const row of rows || []) {
        const d = minus(row, before.rows.get(name(row))), seconds = (time - before.time) / 1000;
        add(services, row.service, d, seconds);
        if (row.instance) add(instances, row.instance, d, seconds);
      }
    }
    for (const name of new Set([...services.keys(), ...this.#services.keys()]))
      this.#services.set(name, finish(services.get(name), this.service(name)));
    this.#instances = new Map([...instances].map(([id, sum]) => [id, finish(sum, nothing)]));
  }
}

function add(sums, name, d, seconds) {
  const sum = sums.get(name) || { requests: 0, errors: 0, bins: new Map() };
  sum.requests += d.requests / seconds;
  sum.errors += d.errors / seconds;
  for (const [us, n] of d.bins) sum.bins.set(us, (sum.bins.get(us) || 0) + n);
  sums.set(name, sum);
}

function finish(sum, before) {
  const { requests = 0, errors = 0, bins = new Map() } = sum || {};
  const sorted = [...bins].sort((a, b) => a[0] - b[0]);
  return { requests, errors, p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99), history: [...before.history, requests].slice(-60) };
}
