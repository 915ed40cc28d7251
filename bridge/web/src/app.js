// The page: signs in, follows the user's channel, starts imports, shows what came of them.

import { createClient } from "@supabase/supabase-js";

import { follow } from "./follow.js";
import { persistently } from "./retrying.js";
import { Runs, isFinal } from "./runs.js";
import { signedIn } from "./session.js";
import { readTopics, showTopics } from "./topics.js";
import { View } from "./view.js";

const view = new View(document);
const runs = new Runs();
const ended = new Set();

async function main() {
  const config = await (await fetch("config.json")).json();
  const supabase = createClient(config.supabaseUrl, config.anonKey);
  const user = await persistently(
    () => signedIn(supabase),
    (error) => view.showProblem(`${error.message}; trying again…`),
  );
  view.showProblem(null);
  supabase.auth.onAuthStateChange((event) => {
    if (event === "SIGNED_OUT") view.showProblem("Your session has ended; reload the page.");
  });
  follow(supabase, `import-socials-${user.id}`, runs, {
    onChange: once(() => draw(supabase)),
    onConnection: (state) => view.showConnection(state),
  });
  const button = document.getElementById("start-button");
  button.disabled = false;
  document.getElementById("start").addEventListener("submit", (event) => {
    event.preventDefault();
    const parallel = new FormData(event.target).get("order") === "parallel";
    void start(supabase, button, parallel);
  });
  setInterval(() => runs.anyAlive && view.showRuns(runs), 1_000); // the time a run takes goes on
}

async function start(supabase, button, parallel) {
  button.disabled = true;
  view.showProblem(null);
  try {
    const id = await requestImport(supabase, parallel);
    runs.accept({
      run_id: id, status: "queued", progress: 0, attempt: 1, seq: -1, created_at: new Date().toISOString(),
    });
    view.showRuns(runs);
  } catch (error) {
    view.showProblem(error instanceof TypeError ? "The server does not answer; try again." : error.message);
  } finally {
    button.disabled = false;
  }
}

async function requestImport(supabase, parallel) {
  const { data } = await supabase.auth.getSession();
  const answer = await fetch("api/import", {
    method: "POST",
    headers: { "Content-Type": "application/json", Authorization: `Bearer ${data.session?.access_token}` },
    body: JSON.stringify({ parallel }),
  });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error ?? `The import did not start (${answer.status}).`);
  return body.id;
}

function draw(supabase) {
  view.showRuns(runs);
  const newlyEnded = runs.topLevel().filter((run) => isFinal(run.status) && !ended.has(run.run_id));
  for (const run of newlyEnded) ended.add(run.run_id);
  if (newlyEnded.length) void drawTopics(supabase);
  const running = runs.topLevel().find((run) => !isFinal(run.status));
  document.title = running ? `${running.progress} % · Import my socials` : "Import my socials";
}

async function drawTopics(supabase, pause = 2_000) {
  try {
    showTopics(document, await readTopics(supabase));
  } catch {
    setTimeout(() => drawTopics(supabase, Math.min(pause * 2, 30_000)), pause);
  }
}

/** Many changes in one turn of the event loop are drawn once. */
function once(action) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    setTimeout(() => {
      isPlanned = false;
      action();
    });
  };
}

main().catch((error) => view.showProblem(`This page cannot start: ${error.message}`));
