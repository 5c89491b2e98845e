"use strict";

const assert = require("node:assert");
const test = require("node:test");
const handle = require("./handler");

test("the answer names method, path and body", async () => {
  const answer = await handle({ method: "POST", path: "/hello", text: "world" }, {});
  assert.strictEqual(answer.statusCode, 200);
  assert.strictEqual(answer.body, "POST /hello: world");
});
