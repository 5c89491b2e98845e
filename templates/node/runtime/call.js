"use strict";
// One call: gather its body, wait for its turn, run the handler, answer or stream, count.

const { once } = require("node:events");
const { BadAnswer, answerFrom, headersOf } = require("./answer");
const { BadBody, Context, Event } = require("./event");
const { currentCall } = require("./log");

const PLAIN = "text/plain; charset=utf-8";

class Call {
  constructor(front, req, res) {
    this.front = front;
    this.req = req;
    this.res = res;
    this.begun = performance.now();
    this.id = req.headers["x-call-id"] || "-";
    this.partial = ""; // what it has printed without ending the line
    this.bytes = null;
    this.runs = false;
    this.closed = false; // nobody waits for the answer any more
    this.abort = null;
  }

  begin() {
    const { headers } = this.req;
    const length = headers["content-length"];
    if ((length === undefined || length === "0") && headers["transfer-encoding"] === undefined) {
      this.front.admit(this);
    } else {
      this.gather();
    }
  }

  gather() {
    const parts = [];
    this.req.on("data", (part) => parts.push(part));
    this.req.on("end", () => {
      this.bytes = parts.length === 1 ? parts[0] : Buffer.concat(parts);
      if (!this.closed) this.front.admit(this);
    });
    this.req.on("error", () => {}); // the connection's end tells
  }

  run() {
    this.runs = true;
    const context = new Context(this);
    currentCall.run(this, start, this, context);
  }

  answered(result, context) {
    this.front.log.end(this);
    if (this.closed) return this.finish(0);
    let answer;
    try {
      answer = answerFrom(result, context);
      if (answer.pieces === null) {
        this.send(answer);
        return this.finish(answer.status);
      }
    } catch (error) {
      return this.failed(error);
    }
    return this.stream(answer);
  }

  send(answer) {
    const { body } = answer;
    const length = typeof body === "string" ? Buffer.byteLength(body) : body.length;
    const bare = answer.status === 204 || answer.status === 304;
    this.res.writeHead(answer.status, headersOf(answer, bare ? -1 : length));
    this.res.end(bare ? undefined : body);
  }

  async stream(answer) {
    const { res } = this;
    try {
      res.writeHead(answer.status, headersOf(answer, -1));
      res.flushHeaders();
      if (String(res.getHeader("content-type")).startsWith("text/event-stream")) this.front.forget(this);
      for await (const piece of answer.pieces) {
        if (this.closed) break; // which ends the stream or the generator as well
        if (!res.write(chunk(piece))) await drained(res);
      }
      if (!this.closed) res.end();
      this.finish(this.closed ? 0 : answer.status);
    } catch (error) {
      this.failed(error);
    }
  }

  failed(error) {
    const { front, res } = this;
    front.log.end(this);
    const bad = error instanceof BadBody;
    if (!bad) front.log.failure(this.id, "the handler failed", error);
    if (this.closed) return this.finish(0);
    if (res.headersSent) res.destroy();
    else if (bad) this.respond(400, "client; bad-body", `${error.message}\n`);
    else this.respond(500, "function; exception", `${what(error)}; the error is in the log under call id ${this.id}\n`);
    return this.finish(bad ? 400 : 500);
  }

  respond(status, error, text, more) {
    const fields = { "Content-Type": PLAIN, "X-Stoker-Error": error, "Content-Length": Buffer.byteLength(text), ...more };
    this.res.writeHead(status, fields);
    this.res.end(text);
  }

  /** The timeout has passed. */
  expire(seconds) {
    if (this.closed || this.res.writableEnded) return;
    if (this.res.headersSent) this.res.destroy();
    else this.respond(504, "function; timeout", `the call took longer than the function's timeout (${seconds} s)\n`, { Connection: "close" });
    this.leave(504);
  }

  /** The client has gone. */
  gone() {
    if (!this.closed && !this.res.writableEnded) this.leave(499);
  }

  /** Nobody waits any more. The handler goes on until it notices, and keeps its place until then. */
  leave(status) {
    this.closed = true;
    this.front.count(this, status);
    if (this.abort) this.abort.abort();
    if (!this.runs) this.front.done(this);
  }

  /** Everything of this call has ended; `status` is 0 if it was counted already. */
  finish(status) {
    if (status) this.front.count(this, status);
    this.closed = true;
    this.front.done(this);
  }

  get signal() {
    if (this.abort === null) {
      this.abort = new AbortController();
      if (this.closed) this.abort.abort();
    }
    return this.abort.signal;
  }
}

function start(call, context) {
  try {
    const result = call.front.handle(new Event(call.req, call.bytes), context);
    if (result !== null && typeof result === "object" && typeof result.then === "function") {
      result.then(
        (value) => call.answered(value, context),
        (error) => call.failed(error),
      );
    } else {
      call.answered(result, context);
    }
  } catch (error) {
    call.failed(error);
  }
}

function what(error) {
  if (error instanceof BadAnswer) return error.message;
  return `the handler threw ${error instanceof Error ? error.name : typeof error}`;
}

function chunk(piece) {
  if (typeof piece === "string" || piece instanceof Uint8Array) return piece;
  throw new BadAnswer(`the stream gave a ${typeof piece}: give text or bytes`);
}

/** When the client has taken what was written, or has gone. */
async function drained(res) {
  const ended = new AbortController();
  const over = () => ended.abort();
  res.once("close", over);
  try {
    if (!res.destroyed) await once(res, "drain", { signal: ended.signal });
  } catch {
    // It has gone: the loop sees that.
  } finally {
    res.off("close", over);
  }
}

module.exports = { Call };
