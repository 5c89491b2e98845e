"use strict";
// The life of the process: load, open, say ready, serve, drain, end. What it says of itself goes to the status
// descriptor, one JSON object a line, when Stoker has given it one.

const fs = require("node:fs");
const http = require("node:http");
const path = require("node:path");
const { share, Context } = require("./event");
const { Front } = require("./front");
const { loadHandler } = require("./handler");
const { watchHealth } = require("./health");
const { install } = require("./log");
const { readSettings } = require("./settings");

const LONGEST_HEAD = 96 * 1024; // the proxy takes 64 KB, and adds its own

async function serve(folder) {
  const settings = readSettings(process.env);
  const log = install(settings.log);
  const say = (status) => report(settings.status, status);
  process.on("uncaughtException", (error) => end(log, say, "an error that nothing caught ended the process", error));
  let code = "import-error";
  try {
    const handler = await loadHandler(path.join(folder, "function"));
    share(settings);
    code = "init-failed";
    const context = new Context({ id: "-" });
    Context.prototype.state = handler.init ? await handler.init(context) : undefined;
    code = "cannot-start";
    const front = new Front(settings, log, handler.handle);
    const tell = (reason) => {
      front.isUnhealthy(reason);
      if (reason) log.lines("-", [`health: ${reason}`]);
      say({ health: reason });
    };
    const stopWatching = await watchHealth(handler.health && (() => handler.health(context)), settings, tell);
    const servers = await listen(settings, front);
    for (const signal of ["SIGTERM", "SIGINT"]) {
      process.once(signal, () => drain(settings, front, servers, handler, context, log, stopWatching));
    }
    say({ ready: {} });
  } catch (error) {
    end(log, say, "the function could not start", error, code);
  }
}

function report(descriptor, status) {
  if (descriptor < 0) return;
  try {
    fs.writeSync(descriptor, `${JSON.stringify(status).slice(0, 60000)}\n`);
  } catch {
    // Nobody listens any more.
  }
}

function end(log, say, text, error, code = "crashed") {
  log.failure("-", text, error);
  say({ failed: oneLine(error), code });
  process.exit(1);
}

function oneLine(error) {
  const message = (error instanceof Error ? error.message : String(error)).split("\n")[0];
  if (error && (error.code === "MODULE_NOT_FOUND" || error.code === "ERR_MODULE_NOT_FOUND")) {
    return `the handler cannot be imported: ${message}; if a package is missing, list it in package.json`;
  }
  if (error instanceof SyntaxError) return `the handler cannot be imported: ${message}`;
  return `the handler failed while it started: ${error instanceof Error ? `${error.name}: ` : ""}${message}`;
}

/** The servers, listening. Idle connections stay open: the proxy closes its own, and no call must meet a close. */
async function listen(settings, front) {
  const options = { keepAliveTimeout: 0, requestTimeout: 0, headersTimeout: 60_000, maxHeaderSize: LONGEST_HEAD };
  const server = http.createServer(options, (req, res) => front.request(req, res));
  server.on("connection", (socket) => socket.on("close", () => front.closed(socket)));
  server.on("checkContinue", (req, res) => {
    res.writeContinue();
    front.request(req, res);
  });
  if (settings.local) {
    await listening(server, { fd: settings.listener, backlog: 1024 });
    return [server];
  }
  const metrics = http.createServer((req, res) => (req.url === "/metrics" ? front.writeMetrics(res) : notFound(res)));
  await listening(server, { port: settings.port });
  await listening(metrics, { port: settings.metricsPort });
  if (settings.lock) fs.writeFileSync(settings.lock, "");
  return [server, metrics];
}

function notFound(res) {
  res.writeHead(404);
  res.end();
}

function listening(server, where) {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(where, resolve);
  });
}

/** Contract section 8.4: unready first, serve on for a while, then no new connections, then wait for the calls. */
async function drain(settings, front, servers, handler, context, log, stopWatching) {
  front.ready = false;
  stopWatching();
  if (!settings.local && settings.lock) fs.rmSync(settings.lock, { force: true });
  await pause(settings.drainDelay);
  for (const server of servers) {
    server.close();
    server.closeIdleConnections();
  }
  const deadline = performance.now() + (settings.timeout || Infinity);
  while (!front.idle && performance.now() < deadline) await pause(10);
  await flushed(servers[0], deadline);
  try {
    if (handler.close) await handler.close(context);
  } catch (error) {
    log.failure("-", "the hook close failed", error);
  }
  process.exit(0);
}

/** Until the last answers are on their way; connections that only wait are closed. */
async function flushed(server, deadline) {
  const open = () => new Promise((resolve) => server.getConnections((error, count) => resolve(error ? 0 : count)));
  for (let tries = 0; tries < 100 && performance.now() < deadline; tries++) {
    server.closeIdleConnections();
    if ((await open()) === 0) return;
    await pause(10);
  }
}

function pause(milliseconds) {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

module.exports = { serve };
