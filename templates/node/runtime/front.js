"use strict";
// The front of a replica: health, readiness, metrics, the limits of calls at once, the timeout (contract section 8.5).
// `max_inflight` refuses what is over it, `STOKER_CONCURRENCY` lets it wait its turn.

const { Call } = require("./call");
const { Metrics } = require("./metrics");

const TICK = 100;
const UNDERSCORE = 95;
const PLAIN = { "Content-Type": "text/plain; charset=utf-8" };

class Front {
  constructor(settings, log, handle) {
    this.settings = settings;
    this.log = log;
    this.handle = handle;
    this.metrics = new Metrics();
    this.ready = true;
    this.unhealthy = ""; // why the hook says no
    this.sickSince = 0;
    this.running = 0;
    this.waiting = [];
    this.calls = new Set(); // in the order of their deadlines: all have the same timeout
    if (settings.timeout) setInterval(() => this.tick(), TICK).unref();
  }

  request(req, res) {
    if (req.url.charCodeAt(1) === UNDERSCORE && this.ownPage(req, res)) return;
    const call = new Call(this, req, res);
    req.socket.call = call;
    if (this.settings.timeout) this.calls.add(call);
    call.begin();
  }

  /** A connection has ended. */
  closed(socket) {
    if (socket.call) socket.call.gone();
  }

  ownPage(req, res) {
    const { url } = req;
    if (url !== "/_/health" && url !== "/_/ready" && url !== "/_/metrics") return false;
    req.resume();
    if (req.method !== "GET") answer(res, 405, "");
    else if (url === "/_/metrics") this.writeMetrics(res);
    else if (!this.ready) answer(res, 503, "draining\n");
    else if (this.unhealthy && (url === "/_/ready" || this.stuck)) answer(res, 503, `unhealthy: ${this.unhealthy}\n`);
    else if (url === "/_/ready" && this.full) answer(res, 429, "at max_inflight\n");
    else answer(res, 200, "OK");
    return true;
  }

  writeMetrics(res) {
    res.writeHead(200, { "Content-Type": "text/plain; version=0.0.4; charset=utf-8" });
    res.end(this.metrics.render(this.running));
  }

  /** The hook `health` says so; an empty reason when it is well again. */
  isUnhealthy(reason) {
    this.unhealthy = reason.replace(/\s+/g, " ").trim().slice(0, 200);
    this.sickSince = performance.now();
  }

  /** Unhealthy for so long that it is better replaced. */
  get stuck() {
    const { replaceAfter } = this.settings;
    return replaceAfter > 0 && performance.now() - this.sickSince >= replaceAfter;
  }

  get full() {
    return this.settings.maxInflight > 0 && this.running >= this.settings.maxInflight;
  }

  get idle() {
    return this.running === 0 && this.waiting.length === 0;
  }

  /** The call is complete: run it, let it wait, or refuse it. */
  admit(call) {
    const { concurrency } = this.settings;
    if (this.full) this.refuse(call);
    else if (concurrency > 0 && this.running >= concurrency) this.waiting.push(call);
    else this.start(call);
  }

  start(call) {
    this.running++;
    call.run();
  }

  refuse(call) {
    const most = this.settings.maxInflight;
    const headers = { "Content-Type": "text/plain", "X-OpenFaaS-Internal": "faas-middleware" };
    const text = `Concurrent request limit exceeded. Max concurrent requests: ${most}\n`;
    call.respond(429, "function; max-inflight", text, headers);
    call.finish(429);
  }

  /** The call needs nothing any more: one that ran gives its place to the next. */
  done(call) {
    this.calls.delete(call);
    if (!call.runs) {
      const place = this.waiting.indexOf(call);
      if (place >= 0) this.waiting.splice(place, 1);
      return;
    }
    call.runs = false;
    this.running--;
    if (this.waiting.length) this.start(this.waiting.shift());
  }

  /** The timeout does not count for this call any more. */
  forget(call) {
    this.calls.delete(call);
  }

  count(call, status) {
    this.metrics.count(call.req.method, status, (performance.now() - call.begun) / 1000);
  }

  tick() {
    const oldest = performance.now() - this.settings.timeout;
    for (const call of this.calls) {
      if (call.begun > oldest) break;
      this.calls.delete(call);
      call.expire(this.settings.timeout / 1000);
    }
  }
}

function answer(res, status, text) {
  res.writeHead(status, { ...PLAIN, "Content-Length": Buffer.byteLength(text) });
  res.end(text);
}

module.exports = { Front };
