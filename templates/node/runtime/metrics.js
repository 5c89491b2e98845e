"use strict";
// A replica's own counters, written out when somebody asks (contract section 7.2).

const BUCKETS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const METHODS = new Set(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE"]);

class Metrics {
  constructor() {
    this.methods = new Map();
  }

  count(method, code, seconds) {
    let codes = this.methods.get(method);
    if (codes === undefined) this.methods.set(method, (codes = new Map()));
    let slots = codes.get(code);
    if (slots === undefined) codes.set(code, (slots = new Float64Array(BUCKETS.length + 2)));
    let bucket = 0;
    while (bucket < BUCKETS.length && seconds > BUCKETS[bucket]) bucket++;
    slots[bucket]++;
    slots[BUCKETS.length + 1] += seconds;
  }

  /** The Prometheus text format. */
  render(inFlight) {
    const totals = ["# TYPE http_requests_total counter"];
    const times = ["# TYPE http_request_duration_seconds histogram"];
    for (const [method, codes] of this.methods) {
      for (const [code, slots] of codes) describe(method, code, slots, totals, times);
    }
    return [...totals, ...times, "# TYPE http_requests_in_flight gauge", `http_requests_in_flight ${inFlight}`, ""].join("\n");
  }
}

function describe(method, code, slots, totals, times) {
  const labels = `code="${code}",method="${METHODS.has(method) ? method.toLowerCase() : "unknown"}"`;
  let below = 0;
  [...BUCKETS, "+Inf"].forEach((bound, index) => {
    below += slots[index];
    times.push(`http_request_duration_seconds_bucket{${labels},le="${bound}"} ${below}`);
  });
  times.push(`http_request_duration_seconds_sum{${labels}} ${slots[BUCKETS.length + 1].toFixed(6)}`);
  times.push(`http_request_duration_seconds_count{${labels}} ${below}`);
  totals.push(`http_requests_total{${labels}} ${below}`);
}

module.exports = { Metrics };
