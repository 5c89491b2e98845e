"use strict";
// What a handler is given: the event (its request) and the context (where and as what it runs). What costs time is
// made when it is asked for.

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const querystring = require("node:querystring");

const NOTHING = Buffer.alloc(0);

/** A body that is not what its Content-Type says; answered with 400. */
class BadBody extends Error {}

class Event {
  constructor(req, bytes) {
    this.request = req;
    this.bytes = bytes || NOTHING;
    this.method = req.method;
    const url = req.url;
    const mark = url.indexOf("?");
    this.path = mark < 0 ? url : url.slice(0, mark);
    this.rawQuery = mark < 0 ? "" : url.slice(mark + 1);
  }

  get headers() {
    return this.request.headers;
  }

  get query() {
    return remember(this, "query", { ...querystring.parse(this.rawQuery) });
  }

  get text() {
    return remember(this, "text", this.bytes.toString());
  }

  /** Text; an object for JSON and for forms; bytes for other types, and always with RAW_BODY=true. */
  get body() {
    return remember(this, "body", this.#decoded());
  }

  set body(value) {
    remember(this, "body", value);
  }

  #decoded() {
    const type = (this.headers["content-type"] || "text/plain").split(";")[0].trim().toLowerCase();
    if (Event.rawBody) return this.bytes;
    if (type.startsWith("text/")) return this.text;
    if (type === "application/json" || type.endsWith("+json")) return this.bytes.length ? parse(this.text) : {};
    if (type === "application/x-www-form-urlencoded") return { ...querystring.parse(this.text) };
    return this.bytes;
  }
}

Event.rawBody = false;

function parse(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new BadBody(`the body is not the JSON that its Content-Type promises: ${error.message}`);
  }
}

function remember(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  return value;
}

/** One for each call. What all calls share is on the prototype; `state` is what `init` gave. */
class Context {
  #call;

  constructor(call) {
    this.#call = call;
    this.callId = call.id;
    this.statusCode = 200;
    this.headerValues = undefined;
    this.answer = undefined;
    this.answered = false;
  }

  /** Aborted when nobody waits for the answer any more. */
  get signal() {
    return this.#call.signal;
  }

  status(code) {
    if (!code) return this.statusCode;
    this.statusCode = code;
    return this;
  }

  headers(values) {
    if (!values) return this.headerValues || {};
    this.headerValues = values;
    return this;
  }

  succeed(value) {
    this.answered = true;
    this.answer = value;
  }

  fail(value) {
    if (this.statusCode === 200) this.statusCode = 500;
    console.error(value);
    this.succeed(value === undefined || value === null ? "" : String(value));
  }

  /** The value of a secret that the function lists, without the newline at its end. */
  secret(name) {
    try {
      return fs.readFileSync(path.join(this.secrets, path.basename(name)), "utf8").replace(/\n$/, "");
    } catch {
      throw new Error(`the function has no secret ${JSON.stringify(name)}: list it under \`secrets\` in stack.yml`);
    }
  }
}

/** What every context shares, before the first call. */
function share(settings) {
  Event.rawBody = settings.rawBody;
  Object.assign(Context.prototype, {
    function: settings.function,
    namespace: settings.namespace,
    hostname: process.env.HOSTNAME || os.hostname(),
    secrets: settings.secrets,
    connections: settings.connections,
    state: undefined,
  });
}

module.exports = { BadBody, Context, Event, share };
