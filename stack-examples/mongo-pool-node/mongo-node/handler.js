"use strict";
// Notes in MongoDB, over one client per replica. The first call makes it, later calls use it.

const fs = require("node:fs");
const path = require("node:path");
const { MongoClient } = require("mongodb");

const MAX_IDLE = 60_000; // milliseconds after which a connection that nobody uses is closed
const ANSWER_TIMEOUT = Number(process.env.MONGO_TIMEOUT) || 3_000; // until a server that does not answer is given up

let connecting; // a promise, so that ten first calls at once make one client

function secret(name) {
  const folder = process.env.STOKER_SECRETS || "/var/openfaas/secrets";
  return fs.readFileSync(path.join(folder, name), "utf8").trimEnd();
}

function client() {
  connecting ??= connect().catch((error) => {
    connecting = undefined; // a failure is not remembered
    throw error;
  });
  return connecting;
}

async function connect() {
  const made = new MongoClient(secret("mongo-uri"), {
    maxPoolSize: Number(process.env.STOKER_CONNECTIONS) || 10,
    minPoolSize: 0,
    maxIdleTimeMS: MAX_IDLE,
    serverSelectionTimeoutMS: ANSWER_TIMEOUT,
    connectTimeoutMS: ANSWER_TIMEOUT,
    waitQueueTimeoutMS: 5_000,
  });
  try {
    return await made.connect();
  } catch (error) {
    await made.close();
    throw error;
  }
}

let failed = false;

async function health() {
  if (connecting) await (await client()).db("admin").command({ ping: 1 });
  else if (failed) await client(); // the last call could not connect: find out whether the next one could
}

async function close() {
  if (connecting) await (await client()).close();
}

async function handle(event) {
  failed = true;
  const notes = (await client()).db("notes").collection("notes");
  failed = false;
  if (event.method === "POST") await notes.insertOne({ text: event.text });
  const found = await notes.find().sort({ _id: -1 }).limit(10).toArray();
  return { notes: found.map((note) => note.text) };
}

module.exports = { handle, health, close };
