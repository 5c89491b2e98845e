"use strict";
// What the handler prints, as records with time and call id, written at once: what was printed just before a crash is
// there. A record is `RS time SP call-id SP text LF`, with `-` for the call id outside of calls.

const { AsyncLocalStorage } = require("node:async_hooks");
const fs = require("node:fs");

const MAX_LINE = 64 * 1024;
const FILE_SIZE = 16 * 1024 * 1024;
const RATE = 10_000_000;
const BURST = 20_000_000;

const currentCall = new AsyncLocalStorage();
const outside = { id: "-", partial: "" };

class Log {
  constructor(path) {
    this.path = path;
    this.descriptor = 2;
    this.written = path ? fs.fstatSync(2).size : 0;
    this.budget = BURST;
    this.refilled = Date.now();
    this.dropped = 0;
  }

  lines(id, lines) {
    const stamp = now();
    this.put(lines.map((line) => record(stamp, id, line)).join(""), lines.length);
  }

  put(text, count) {
    let block = Buffer.from(text);
    if (!this.allow(block.length)) {
      this.dropped += count;
      return;
    }
    if (this.dropped) {
      const notice = `[stoker: ${this.dropped} lines dropped here: more than 10 MB a second]`;
      this.dropped = 0;
      block = Buffer.concat([Buffer.from(record(now(), "-", notice)), block]);
    }
    this.write(block);
    this.written += block.length;
    if (this.path && this.written > FILE_SIZE) this.rotate();
  }

  write(block) {
    try {
      for (let done = 0; done < block.length; ) done += fs.writeSync(this.descriptor, block, done);
    } catch {
      // A full disk must not fail a call.
    }
  }

  allow(size) {
    const at = Date.now();
    this.budget = Math.min(BURST, this.budget + ((at - this.refilled) / 1000) * RATE);
    this.refilled = at;
    if (size > this.budget) return false;
    this.budget -= size;
    return true;
  }

  /** Put the file aside and go on in a new one. Node cannot move descriptors: what is printed below it stays behind. */
  rotate() {
    try {
      fs.renameSync(this.path, this.path + ".1");
      const fresh = fs.openSync(this.path, "a", 0o600);
      if (this.descriptor !== 2) fs.closeSync(this.descriptor);
      this.descriptor = fresh;
      this.written = 0;
    } catch {
      this.written = 0; // the next try is a file's size away
    }
  }

  print(text) {
    const call = currentCall.getStore() || outside;
    const lines = (call.partial + text).split("\n");
    call.partial = lines.pop();
    if (call.partial.length > MAX_LINE) {
      lines.push(call.partial);
      call.partial = "";
    }
    if (lines.length) this.lines(call.id, lines);
  }

  /** The call is over: an unfinished line is a line now. */
  end(call) {
    if (call.partial) {
      this.lines(call.id, [call.partial]);
      call.partial = "";
    }
  }

  /** Say what failed, with the frames of its stack that are not ours. */
  failure(id, what, error) {
    const text = error instanceof Error ? error.stack || String(error) : String(error);
    const stack = text.split("\n").filter((line) => !line.includes(`(${__dirname}/`) && !line.includes("node:internal"));
    const cause = error instanceof Error && error.cause ? [`caused by: ${error.cause}`] : [];
    this.lines(id, [what, ...stack, ...cause]);
  }
}

function now() {
  return new Date().toISOString().slice(0, -1) + "000Z";
}

function record(stamp, id, line) {
  const bytes = line.length * 3 > MAX_LINE ? Buffer.byteLength(line) : 0;
  if (bytes > MAX_LINE) {
    line = Buffer.from(line).subarray(0, MAX_LINE).toString() + ` [stoker: ${bytes - MAX_LINE} bytes of this line dropped]`;
  }
  return `\x1e${stamp} ${id} ${line}\n`;
}

/** Make prints go to the log from now on. */
function install(path) {
  const log = new Log(path);
  for (const stream of [process.stdout, process.stderr]) {
    stream.write = (chunk, encoding, done) => {
      log.print(typeof chunk === "string" ? chunk : Buffer.from(chunk).toString());
      const callback = typeof encoding === "function" ? encoding : done;
      if (callback) process.nextTick(callback);
      return true;
    };
  }
  return log;
}

module.exports = { currentCall, install };
