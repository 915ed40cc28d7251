// Doing again what may fail or be asked for again.

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;

/** Milliseconds before the next try, after this many failures. */
export function backoff(failures) {
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return pause * (0.5 + Math.random() / 2);
}

/** Try until it works; `onFailure(error)` each time it does not. */
export async function persistently(action, onFailure) {
  for (let failures = 0; ; failures++) {
    try {
      return await action();
    } catch (error) {
      onFailure(error);
      await new Promise((resolve) => setTimeout(resolve, backoff(failures)));
    }
  }
}

/**
 * A function that asks for `action` within some milliseconds. Requests that come before it starts share
 * it; one that comes while it runs is followed by another, since the first may have missed its cause.
 */
export function requestable(action) {
  let [timer, due, isRunning, isStale, failures] = [null, Infinity, false, false, 0];

  function request(pause = 0) {
    if (isRunning) {
      isStale = true;
      return;
    }
    if (performance.now() + pause >= due) return;
    clearTimeout(timer);
    due = performance.now() + pause;
    timer = setTimeout(run, pause);
  }

  async function run() {
    [due, isRunning, isStale] = [Infinity, true, false];
    let next = null;
    try {
      await action();
      failures = 0;
    } catch {
      next = backoff(failures++);
    }
    isRunning = false;
    next ??= isStale ? 0 : null;
    if (next !== null) request(next);
  }

  return request;
}
