"use strict";
// What can be tested without a database: how large the pool is, and that nothing waits for ever.

const assert = require("node:assert");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");
const test = require("node:test");
const handler = require("./handler");

test("the pool is as large as this replica's share", async () => {
  for (const [share, size] of [[3, 3], [1, 1], [0, 4]]) {
    const pool = handler.makePool("postgresql://app:secret@127.0.0.1:1/app", share);
    assert.strictEqual(pool.options.max, size);
    await pool.end();
  }
});

test("without a database the start fails at once, and names the address", async () => {
  const server = net.createServer().listen(0, "127.0.0.1");
  await new Promise((done) => server.once("listening", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "secrets-"));
  fs.writeFileSync(path.join(folder, "postgres-dsn"), `postgresql://app:secret@127.0.0.1:${port}/app\n`);
  process.env.STOKER_SECRETS = folder;
  try {
    await assert.rejects(handler.init(), { code: "ECONNREFUSED", port });
    await handler.close();
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
});
