"use strict";
// The hook `health`, asked every so often: it fails by throwing, by returning false, or by not answering in time.

/**
 * Begin to ask; tells `say` the reason after so many failures in a row, and "" when it is good again. Resolves to what
 * ends it, after the first answer, which counts alone: what starts unhealthy is to get no call.
 */
async function watchHealth(hook, settings, say) {
  if (!hook) return () => {};
  let failures = 0;
  let successes = 0;
  let timer = null;
  const first = await reasonOf(hook, settings.healthTimeout);
  let sick = Boolean(first);
  if (sick) say(first);
  const ask = async () => {
    const reason = await reasonOf(hook, settings.healthTimeout);
    if (timer === null) return;
    [failures, successes] = reason ? [failures + 1, 0] : [0, successes + 1];
    if (!sick && failures >= settings.healthFailures) {
      sick = true;
      say(reason);
    } else if (sick && successes >= settings.healthSuccesses) {
      sick = false;
      successes = 0;
      say("");
    }
    timer = setTimeout(ask, settings.healthPeriod);
  };
  timer = setTimeout(ask, settings.healthPeriod);
  return () => {
    clearTimeout(timer);
    timer = null;
  };
}

async function reasonOf(hook, timeout) {
  let timer;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, timeout, `health() took longer than ${timeout / 1000} s`);
  });
  const asked = (async () => ((await hook()) === false ? "health() returned false" : ""))();
  try {
    return await Promise.race([asked.catch((error) => String((error && error.message) || error || "health() failed")), late]);
  } finally {
    clearTimeout(timer);
  }
}

module.exports = { watchHealth };
