-- An attempt that died with its worker takes none of the task's own retries away: where both come together a run
-- has more attempts than it was announced with, and its row never tells of the fifth of four.

-- The row after an element, all columns but the counters; `before` is null for a new run. As it was, but for that.
create or replace function taskcast.merged(before public.processing_jobs, element jsonb) returns public.processing_jobs
language plpgsql stable set search_path = '' as $$
declare
  happened timestamptz := to_timestamp((element ->> 'at')::double precision);
  fresh constant boolean := coalesce((element ->> 'fresh')::boolean, false);
  base public.processing_jobs := before;
  run public.processing_jobs;
begin
  if before.id is null then
    base.id := (element ->> 'id')::uuid;
    base.status := 'queued';
    base.progress := 0;
    base.seq := 0;
    base.log_seq := 0;
    base.parts_total := 0;
    base.parts_progress := 0;
  end if;
  run := jsonb_populate_record(base, coalesce(element -> 'set', '{}')
    - '{id,seq,version,attempt,log_seq,parts,parts_total,parts_progress,finished_at,updated_at}'::text[]);
  run.attempt := (element ->> 'attempt')::integer;
  run.version := (element ->> 'version')::bigint;
  run.task := coalesce(before.task, run.task);
  run.queue := coalesce(before.queue, run.queue);
  run.user_id := coalesce(before.user_id, run.user_id);
  run.input_file := coalesce(before.input_file, run.input_file);
  run.channel := coalesce(before.channel, run.channel);
  run.parent_id := coalesce(before.parent_id, nullif(run.parent_id, run.id));
  run.root_id := coalesce(before.root_id, run.root_id);
  run.metadata := coalesce(before.metadata, run.metadata);
  run.tags := coalesce(before.tags, run.tags);
  run.max_attempts := coalesce(before.max_attempts, run.max_attempts);
  if run.attempt > run.max_attempts then
    run.max_attempts := run.attempt;
  end if;
  run.created_at := coalesce(before.created_at, run.created_at, happened);
  run.status := coalesce(run.status, base.status);
  run.progress := greatest(0, least(100, coalesce(run.progress, base.progress)));
  if before.parent_id is null then
    run.parts := coalesce((element ->> 'parts')::integer, 1);
  end if;
  if run.attempt = before.attempt and (
       (fresh or run.status = 'waiting')
         and before.status not in ('scheduled', 'queued', 'waiting', 'retrying')
       or fresh and before.status = 'waiting' and run.status in ('scheduled', 'queued', 'retrying')) then
    run.status := before.status;
    run.state := before.state;
  end if;
  run.started_at := coalesce(before.started_at, run.started_at);
  if run.status = 'in_progress' then
    run.started_at := coalesce(run.started_at, happened);
  end if;
  if taskcast.is_final(run.status) then
    run.finished_at := happened;
  end if;
  if run.status <> 'waiting' then
    run.wait_reason := null;
    run.queue_position := null;
  end if;
  if run.status = 'completed' then
    run.progress := 100;
    run.error_code := null;
    run.error_message := null;
  end if;
  return run;
end $$;
