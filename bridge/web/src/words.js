// How statuses and times are said to a person.

import { isFinal } from "./runs.js";

const STATUSES = {
  scheduled: "Scheduled",
  queued: "Queued",
  waiting: "Waiting",
  in_progress: "Running",
  retrying: "Trying again",
  cancelling: "Stopping",
  completed: "Completed",
  failed: "Failed",
  cancelled: "Cancelled",
  expired: "Expired",
};

export const statusWord = (status) => STATUSES[status] ?? status;

export function messageOf(run) {
  if (run.status === "waiting") return waiting(run);
  if (run.message) return run.message;
  if (run.status === "queued") return "Waiting for a free worker…";
  if (run.status === "completed") return "Done";
  return isFinal(run.status) ? statusWord(run.status) : "Starting…";
}

function waiting(run) {
  return run.queue_position ? `Waiting, number ${run.queue_position} in line` : "Waiting for its turn";
}

/** One line of facts below the bar, such as "Finding topics · attempt 2 of 5 · 8 s", or why it waits. */
export function factsOf(run, now) {
  const attempts = run.max_attempts ? `attempt ${run.attempt} of ${run.max_attempts}` : `attempt ${run.attempt}`;
  const attempt = run.attempt > 1 ? attempts : null;
  if (run.status === "waiting") return [run.wait_reason, attempt].filter(Boolean).join(" · ");
  const isSaid = !run.step || isFinal(run.status) || run.message?.startsWith(run.step);
  const end = run.finished_at ? Date.parse(run.finished_at) : now;
  const took = run.started_at ? duration(end - Date.parse(run.started_at)) : null;
  return [isSaid ? null : run.step, attempt, took].filter(Boolean).join(" · ");
}

export function titleOf(run) {
  const started = new Date(run.created_at);
  const isToday = started.toDateString() === new Date().toDateString();
  const time = started.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  return isToday ? `Import of ${time}` : `Import of ${started.toLocaleDateString()}, ${time}`;
}

export const timeOf = (line) =>
  new Date(line.at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

function duration(milliseconds) {
  const seconds = Math.max(0, milliseconds / 1000);
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}
