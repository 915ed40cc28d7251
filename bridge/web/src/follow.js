// Follows a channel, and reads the rows whenever a broadcast may have been missed.

import { readRuns } from "./rows.js";

const CHECK_EVERY_MS = 30_000;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;

/**
 * Keep `runs` current from `topic`; `onChange()` after every change, `onConnection(state)` with
 * "live", "reconnecting" or "offline".
 */
export function follow(supabase, topic, runs, { onChange, onConnection }) {
  let failures = 0;
  let pending = null;

  function heal(pause = 0) {
    pending ??= setTimeout(async () => {
      try {
        const rows = await readRuns(supabase);
        pending = null;
        failures = 0;
        for (const { lines, ...snapshot } of rows) {
          runs.accept(snapshot);
          for (const line of lines) runs.acceptLine(snapshot.run_id, line);
        }
        onChange();
      } catch {
        pending = null;
        heal(backoff(failures++));
      }
    }, pause);
  }

  function join() {
    const channel = supabase.channel(topic, { config: { private: true } });
    const onSnapshot = ({ payload }) => runs.accept(payload) && onChange();
    channel
      .on("broadcast", { event: "state" }, onSnapshot)
      .on("broadcast", { event: "progress" }, onSnapshot)
      .on("broadcast", { event: "log" }, ({ payload }) => {
        if (runs.acceptLine(payload.run_id, payload)) heal(500);
        onChange();
      })
      .subscribe((status) => {
        if (status === "SUBSCRIBED") {
          onConnection("live");
          heal();
          return;
        }
        onConnection(navigator.onLine ? "reconnecting" : "offline");
        // Errors and timeouts are retried by the client; a closed channel (its token expired, or the
        // server threw it off) is not.
        if (status === "CLOSED") setTimeout(join, backoff(0));
      });
  }

  const isVisible = () => document.visibilityState === "visible";
  document.addEventListener("visibilitychange", () => isVisible() && heal());
  addEventListener("online", () => heal());
  addEventListener("offline", () => onConnection("offline"));
  setInterval(() => isVisible() && runs.anyAlive && heal(), CHECK_EVERY_MS);

  heal();
  join();
}

function backoff(failures) {
  const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures);
  return pause * (0.5 + Math.random() / 2);
}
