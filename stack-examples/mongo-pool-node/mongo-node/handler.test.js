"use strict";
// What can be tested without MongoDB: up to the connection attempt.

process.env.MONGO_TIMEOUT = "300";
const assert = require("node:assert");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const handler = require("./handler");

test("a call dials the server, says its first words, gives up in time, and the next tries again", async () => {
  const heard = [];
  const server = net.createServer((socket) => socket.on("error", () => {}).once("data", (data) => heard.push(data)));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "secrets-"));
  fs.writeFileSync(path.join(folder, "mongo-uri"), `mongodb://127.0.0.1:${server.address().port}/\n`);
  process.env.STOKER_SECRETS = folder;
  try {
    await handler.health(); // no call yet, so nothing is wrong yet
    assert.strictEqual(heard.length, 0);
    const event = { method: "POST", text: "note" };
    await assert.rejects(handler.handle(event), { name: "MongoServerSelectionError" });
    assert.ok([2004, 2013].includes(heard[0].readInt32LE(12))); // OP_QUERY, OP_MSG
    await assert.rejects(handler.health(), { name: "MongoServerSelectionError" });
    await assert.rejects(handler.handle(event), { name: "MongoServerSelectionError" });
    await handler.close();
  } finally {
    fs.rmSync(folder, { recursive: true });
    server.close();
    server.closeAllConnections?.();
  }
});
