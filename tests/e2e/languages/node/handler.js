"use strict";
const fs = require("node:fs");
const { setTimeout: sleep } = require("node:timers/promises");

let running = 0;
let most = 0;

async function* pieces() {
  yield "one\n";
  await sleep(500);
  yield Buffer.from("two\n");
}

const routes = {
  "/echo": (event) => event.bytes,
  "/answer": () => ({ statusCode: 201, headers: { "X-One": "1", "Content-Type": "text/x-test" }, body: "made" }),
  "/fail": () => {
    console.log("about to fail");
    throw new Error("the cause");
  },
  "/stream": () => pieces(),
  "/sleep": async (event) => {
    await sleep(Number(event.text) * 1000);
    return "slept";
  },
  "/print": (event) => {
    console.log(event.text);
    return "printed";
  },
  "/request": (event) => [event.method, event.path, event.rawQuery, event.headers["x-test"]],
  "/context": (_, context) => ({
    function: context.function,
    namespace: context.namespace,
    call: context.callId,
    state: context.state,
  }),
  "/secret": (_, context) => context.secret("api-key"),
  "/most": async () => {
    most = Math.max(most, ++running);
    await sleep(50);
    running--;
    return String(most);
  },
};

module.exports = async (event, context) => routes[event.path](event, context);

module.exports.init = async () => {
  if (process.env.FAIL_INIT) throw new Error("no way to begin");
  console.log("opened");
  return "opened";
};
module.exports.health = async () => {
  if (process.env.SICK && fs.existsSync(process.env.SICK)) throw new Error("broken on purpose");
};
module.exports.close = async () => console.log("closed");
