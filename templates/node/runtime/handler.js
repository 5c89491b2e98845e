"use strict";
// Finds the handler and its hooks: a CommonJS module that exports a function, or an ES module with a default export.

const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const NAMES = ["handler.js", "handler.mjs", "handler.cjs"];

/** `{ handle, init, health, close }`; a hook that is not there is undefined. */
async function loadHandler(folder) {
  const file = NAMES.map((name) => path.join(folder, name)).find((one) => fs.existsSync(one));
  if (!file) throw new Error("handler.js is missing in the handler folder");
  const module = await import(pathToFileURL(file).href);
  const main = module.default === undefined ? module : module.default;
  const handle = typeof main === "function" ? main : main.handle || module.handle;
  if (typeof handle !== "function") {
    throw new Error(`${path.basename(file)} exports no function: write module.exports = async (event, context) => ...`);
  }
  const hook = (name) => [module[name], main[name]].find((one) => typeof one === "function");
  return { handle: withCallback(handle), init: hook("init"), health: hook("health"), close: hook("close") };
}

/** A handler of three parameters may answer by `callback(error, result)`. */
function withCallback(handle) {
  if (handle.length < 3) return handle;
  return (event, context) =>
    new Promise((resolve, reject) => {
      const callback = (error, result) => (error ? reject(error) : resolve(result));
      const returned = handle(event, context, callback);
      if (returned && typeof returned.then === "function") returned.then(resolve, reject);
    });
}

module.exports = { loadHandler };
