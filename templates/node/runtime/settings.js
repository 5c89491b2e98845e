"use strict";
// What the process is told, by its environment (contract section 8.1), in one value. Times are in milliseconds.

const UNITS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
const DURATION = /^(\d+(\.\d+)?(ms|s|m|h))+$/;

/** `1m30s`, `500ms`, or a bare number of seconds; what is none of these is the default. */
function duration(text, otherwise) {
  if (!text) return otherwise;
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (!DURATION.test(text)) return otherwise;
  return [...text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)].reduce((sum, [, n, unit]) => sum + n * UNITS[unit], 0);
}

function count(text, otherwise) {
  return /^\d+$/.test(text || "") ? Number(text) : otherwise;
}

function readSettings(env) {
  const local = env.STOKER_LISTENER !== undefined;
  const write = duration(env.write_timeout, 30_000);
  return {
    local,
    listener: count(env.STOKER_LISTENER, -1),
    status: count(env.STOKER_STATUS, -1),
    log: env.STOKER_LOG || "",
    port: count(env.port, 8080),
    metricsPort: count(env.STOKER_METRICS_PORT, 8081),
    lock: env.suppress_lock === "true" || env.suppress_lock === "1" ? "" : "/tmp/.lock",
    timeout: duration(env.exec_timeout, 30_000),
    maxInflight: count(env.max_inflight, 0),
    concurrency: count(env.STOKER_CONCURRENCY, 0),
    connections: count(env.STOKER_CONNECTIONS, 0),
    secrets: env.STOKER_SECRETS || "/var/openfaas/secrets",
    drainDelay: local ? 0 : duration(env.healthcheck_interval, write),
    healthPeriod: duration(env.STOKER_HEALTH_PERIOD, 2000),
    healthTimeout: duration(env.STOKER_HEALTH_TIMEOUT, 1000),
    healthFailures: count(env.STOKER_HEALTH_FAILURES, 3) || 1,
    healthSuccesses: count(env.STOKER_HEALTH_SUCCESSES, 1) || 1,
    replaceAfter: duration(env.STOKER_REPLACE_AFTER, 60_000),
    rawBody: env.RAW_BODY === "true",
    function: env.OPENFAAS_NAME || "",
    namespace: env.OPENFAAS_NAMESPACE || "",
  };
}

module.exports = { readSettings };
