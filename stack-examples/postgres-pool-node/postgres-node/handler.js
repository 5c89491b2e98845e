"use strict";
// Notes in PostgreSQL, over a pool that is opened before the first call and kept until the replica leaves.

const fs = require("node:fs");
const path = require("node:path");
const { Pool } = require("pg");

const MAX_IDLE = 60_000; // milliseconds after which a connection that nobody uses is closed; one stays
const TABLE = "CREATE TABLE IF NOT EXISTS notes (id bigserial PRIMARY KEY, text text NOT NULL)";

let pool;

function secret(name) {
  const folder = process.env.STOKER_SECRETS || "/var/openfaas/secrets";
  return fs.readFileSync(path.join(folder, name), "utf8").trimEnd();
}

function makePool(connectionString, share) {
  const made = new Pool({
    connectionString,
    min: 1,
    max: share || 4,
    idleTimeoutMillis: MAX_IDLE,
    connectionTimeoutMillis: 5_000,
  });
  // A connection that breaks while nobody uses it says so here; without a listener that would end the process.
  made.on("error", (error) => console.error(`a connection was lost: ${error.message}`));
  return made;
}

async function init() {
  pool = makePool(secret("postgres-dsn"), Number(process.env.STOKER_CONNECTIONS));
  const client = await pool.connect();
  try {
    await client.query("SELECT pg_advisory_lock(1)"); // two replicas may start at once
    await client.query(TABLE);
    await client.query("SELECT pg_advisory_unlock(1)");
  } finally {
    client.release();
  }
}

async function health() {
  await pool.query("SELECT 1");
}

async function close() {
  await pool.end();
}

async function handle(event) {
  if (event.method === "POST") await pool.query("INSERT INTO notes (text) VALUES ($1)", [event.text]);
  const { rows } = await pool.query("SELECT text FROM notes ORDER BY id DESC LIMIT 10");
  return { notes: rows.map((row) => row.text) };
}

module.exports = { handle, init, health, close, makePool };
