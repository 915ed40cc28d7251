// Follows a channel, and reads the rows whenever a broadcast may have been missed.

import { backoff, requestable } from "./retrying.js";
import { readRuns } from "./rows.js";

const CHECK_EVERY_MS = 30_000; // a live connection may still have dropped a message
const CHECK_EVERY_MS_WHEN_AWAY = 3_000;
const AFTER_A_GAP_MS = 500;

/**
 * Keep `runs` current from `topic`; `onChange()` after every change, `onConnection(state)` with
 * "live", "reconnecting" or "offline".
 */
export function follow(supabase, topic, runs, { onChange, onConnection }) {
  let isLive = false;
  let checked = 0;

  const heal = requestable(async () => {
    checked = performance.now();
    for (const { lines, ...snapshot } of await readRuns(supabase)) {
      runs.accept(snapshot);
      for (const line of lines) runs.acceptLine(snapshot.run_id, line);
    }
    onChange();
  });

  async function join() {
    await supabase.realtime.setAuth().catch(() => {}); // without it, the first join may go out as nobody's
    const onSnapshot = ({ payload }) => runs.accept(payload) && onChange();
    supabase
      .channel(topic, { config: { private: true } })
      .on("broadcast", { event: "state" }, onSnapshot)
      .on("broadcast", { event: "progress" }, onSnapshot)
      .on("broadcast", { event: "log" }, ({ payload }) => {
        if (runs.acceptLine(payload.run_id, payload)) heal(AFTER_A_GAP_MS);
        onChange();
      })
      .subscribe(onStatus);
  }

  function onStatus(status) {
    isLive = status === "SUBSCRIBED";
    if (isLive) {
      onConnection("live");
      heal();
      return;
    }
    onConnection(navigator.onLine ? "reconnecting" : "offline");
    // Errors and timeouts are retried by the client; a closed channel (its token expired, or the server
    // threw it off) is not.
    if (status === "CLOSED") setTimeout(join, backoff(0));
  }

  const isVisible = () => document.visibilityState === "visible";
  document.addEventListener("visibilitychange", () => isVisible() && heal());
  addEventListener("online", () => heal());
  addEventListener("offline", () => onConnection("offline"));
  setInterval(() => {
    const isDue = performance.now() - checked >= (isLive ? CHECK_EVERY_MS : CHECK_EVERY_MS_WHEN_AWAY);
    if (isDue && isVisible() && runs.anyAlive) heal();
  }, CHECK_EVERY_MS_WHEN_AWAY);

  heal(); // shows what is known even while Realtime is away
  void join();
}
