// The rows of a user's runs, read as that user: row level security shows no others.

const RUNS_SHOWN = 20;
const PARTS_READ = 200;
const LINES_READ = 50;
const TIMEOUT_MS = 15_000;

const COLUMNS =
  "run_id:id,task,status,state,progress,current,total,step,message,attempt,max_attempts,wait_reason," +
  "queue_position,result_url,error_code,error_message,parent_id,seq,at:updated_at,created_at,started_at," +
  "finished_at,lines:processing_job_logs(line:seq,level,message,at:created_at)";

/** The newest runs and the runs below them, each with its last log lines. */
export async function readRuns(supabase) {
  const runs = await select(supabase).is("parent_id", null).limit(RUNS_SHOWN);
  if (runs.error) throw runs.error;
  const ids = runs.data.map((run) => run.run_id);
  if (!ids.length) return [];
  const parts = await select(supabase).not("parent_id", "is", null).in("root_id", ids).limit(PARTS_READ);
  if (parts.error) throw parts.error;
  return [...runs.data, ...parts.data];
}

function select(supabase) {
  return supabase
    .from("processing_jobs")
    .select(COLUMNS)
    .order("created_at", { ascending: false })
    .order("seq", { referencedTable: "lines", ascending: false })
    .limit(LINES_READ, { referencedTable: "lines" })
    .abortSignal(AbortSignal.timeout(TIMEOUT_MS));
}
