"use strict";
// Turns what a handler returned into status, headers and body.

const { Readable } = require("node:stream");

const TEXT = "text/plain; charset=utf-8";
const NOT_A_HANDLERS = new Set(["content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer"]);

class BadAnswer extends Error {}

/** Sends the answer. `pieces` is set when the body is a stream, which the caller pumps; otherwise all is sent. */
function answerFrom(result, context) {
  const answer = { status: context.statusCode, headers: context.headerValues, type: TEXT, body: "", pieces: null };
  if (context.answered || result === context) fill(answer, context.answer);
  else if (hasParts(result)) fillParts(answer, result);
  else fill(answer, result);
  if (!Number.isInteger(answer.status) || answer.status < 200 || answer.status > 999) {
    throw new BadAnswer(`the handler returned statusCode ${String(answer.status)}: use a number from 200 to 999`);
  }
  return answer;
}

function hasParts(value) {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return false;
  return value.statusCode !== undefined || value.body !== undefined || value.headers !== undefined
    ? !(value instanceof Readable)
    : false;
}

function fillParts(answer, parts) {
  if (parts.statusCode !== undefined) answer.status = parts.statusCode;
  if (parts.headers) answer.headers = answer.headers ? { ...answer.headers, ...parts.headers } : parts.headers;
  fill(answer, parts.body);
}

function fill(answer, value) {
  if (typeof value === "string") answer.body = value;
  else if (value === undefined || value === null) answer.body = "";
  else if (value instanceof Uint8Array) binary(answer, value);
  else if (value instanceof ArrayBuffer) binary(answer, Buffer.from(value));
  else if (typeof value === "object" && (value[Symbol.asyncIterator] || typeof value.next === "function")) answer.pieces = value;
  else json(answer, value);
}

function binary(answer, bytes) {
  answer.type = "application/octet-stream";
  answer.body = bytes;
}

function json(answer, value) {
  answer.type = "application/json";
  try {
    answer.body = JSON.stringify(value);
  } catch (error) {
    throw new BadAnswer(`the handler returned something that is not JSON: ${error.message}`);
  }
  if (answer.body === undefined) {
    throw new BadAnswer(`the handler returned a ${typeof value}: return text, bytes, an object or a stream`);
  }
}

/** The headers as `writeHead` takes them, with the type unless the handler gave one. */
function headersOf(answer, length) {
  const fields = {};
  let typed = false;
  for (const name in answer.headers) {
    const lower = name.toLowerCase();
    if (NOT_A_HANDLERS.has(lower)) continue;
    if (lower === "content-type") typed = true;
    fields[name] = answer.headers[name];
  }
  if (!typed) fields["Content-Type"] = answer.type;
  if (length >= 0) fields["Content-Length"] = length;
  return fields;
}

module.exports = { BadAnswer, answerFrom, headersOf };
