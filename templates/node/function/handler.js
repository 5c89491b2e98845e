"use strict";

/** Answers a call: `event` is the request, `context` knows the function and the call. */
module.exports = async (event, context) => {
  return { statusCode: 200, headers: { "Content-Type": "text/plain" }, body: `${event.method} ${event.path}: ${event.text}` };
};
