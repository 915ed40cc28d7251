// What is known of a user's runs: the newest snapshot of each, and their log lines.

const FINAL = new Set(["completed", "failed", "cancelled", "expired"]);
const LINES_KEPT = 200;

export const isFinal = (status) => FINAL.has(status);

export class Runs {
  #snapshots = new Map();
  #lines = new Map();

  /** Keep a snapshot unless a newer one is known; says whether anything changed. */
  accept(snapshot) {
    const known = this.#snapshots.get(snapshot.run_id);
    if (known && known.seq >= snapshot.seq) return false;
    this.#snapshots.set(snapshot.run_id, { ...known, ...snapshot });
    return true;
  }

  /** Keep a numbered log line; says whether lines before it are missing. */
  acceptLine(runId, line) {
    const lines = this.#lines.get(runId) ?? new Map();
    this.#lines.set(runId, lines);
    const isGap = line.line > 1 && !lines.has(line.line) && !lines.has(line.line - 1);
    lines.set(line.line, line);
    if (lines.size > LINES_KEPT) lines.delete(Math.min(...lines.keys()));
    return isGap;
  }

  get(runId) {
    return this.#snapshots.get(runId);
  }

  /** The runs that a person started, newest first. */
  topLevel() {
    return [...this.#snapshots.values()]
      .filter((run) => !run.parent_id)
      .sort((a, b) => Date.parse(b.created_at) - Date.parse(a.created_at));
  }

  /** The lines of a run and of everything below it, in the order they happened. */
  linesOf(runId) {
    const found = [];
    for (const [id, lines] of this.#lines) {
      if (this.#top(id) === runId) found.push(...lines.values());
    }
    return found.sort((a, b) => Date.parse(a.at) - Date.parse(b.at) || a.line - b.line).slice(-LINES_KEPT);
  }

  get anyAlive() {
    return [...this.#snapshots.values()].some((run) => !isFinal(run.status));
  }

  #top(runId) {
    const seen = new Set();
    let id = runId;
    while (this.#snapshots.get(id)?.parent_id && !seen.has(id)) {
      seen.add(id);
      id = this.#snapshots.get(id).parent_id;
    }
    return id;
  }
}
