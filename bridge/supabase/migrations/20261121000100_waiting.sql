-- Runs that wait for a limit: late news of a wait changes nothing, a place in line is progress.

-- The row after an element, all columns but the counters; `before` is null for a new run.
-- Publishers, waiting rooms and executing processes append each for themselves, so what opens an attempt
-- and what says that it waits may come late: neither takes back what came of the attempt since.
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

-- One element of a batch; see public.mirror_runs.
create or replace function taskcast.mirror_run(element jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  before public.processing_jobs;
  run public.processing_jobs;
  attempt integer not null := (element ->> 'attempt')::integer;
  version constant bigint not null := (element ->> 'version')::bigint;
  is_new boolean;
  state_changed boolean;
  progress_changed boolean;
  lines jsonb := '[]';
  parents jsonb := '[]';
begin
  select * into before from public.processing_jobs where id = (element ->> 'id')::uuid for update;
  is_new := not found;
  if is_new and coalesce((element ->> 'existing')::boolean, false) then
    return jsonb_build_object('id', element -> 'id', 'outcome', 'unknown');
  end if;
  if attempt = 0 and not is_new then  -- the writer does not know the attempt: whichever it is
    attempt := before.attempt;
    element := jsonb_set(element, '{attempt}', to_jsonb(attempt));
  end if;
  if attempt < before.attempt then
    return jsonb_build_object('id', before.id, 'outcome', 'stale');
  elsif attempt = before.attempt and version <= before.version then
    return taskcast.announcement(before)
      || jsonb_build_object('outcome', 'duplicate', 'parents', taskcast.ancestors(before));
  elsif taskcast.is_final(before.status) then
    return jsonb_build_object('id', before.id, 'outcome', 'final');
  elsif not is_new and element -> 'set' ?| '{wait_reason,queue_position}'
      and (element -> 'set') - '{wait_reason,queue_position}'::text[] = '{}'
      and coalesce(element -> 'logs', '[]') = '[]'
      and (before.status <> 'waiting' or attempt > before.attempt) then
    -- A place in line comes from whoever counts the line: late, the run is in it no more. Nothing is
    -- written, not even the version, so that no listener of the table is woken.
    return jsonb_build_object('id', before.id, 'outcome', 'stale');
  end if;

  run := taskcast.merged(before, element);
  if is_new then
    select coalesce(sum(child.parts), 0), coalesce(sum(taskcast.share(child)), 0)
      into run.parts_total, run.parts_progress
      from public.processing_jobs as child where child.parent_id = run.id;
    if run.parts_total > 0 and run.current is null and not taskcast.is_final(run.status) then
      run.progress := least(100, run.parts_progress / run.parts_total);
    end if;
  end if;

  state_changed := is_new or
    (run.status, run.state, run.task, run.attempt, run.max_attempts, run.result, run.error_code,
     run.error_message, run.parent_id, run.started_at, run.finished_at)
    is distinct from
    (before.status, before.state, before.task, before.attempt, before.max_attempts, before.result,
     before.error_code, before.error_message, before.parent_id, before.started_at, before.finished_at);
  progress_changed := taskcast.is_final(run.status) or
    (run.progress, run.current, run.total, run.message, run.step, run.result_url) is distinct from
    (coalesce(before.progress, 0), before.current, before.total, before.message, before.step, before.result_url)
    -- Moving up in a line is progress, which gives way when messages are scarce; with a change of state
    -- it is told by that one's message.
    or (not state_changed and (run.wait_reason, run.queue_position)
        is distinct from (before.wait_reason, before.queue_position));
  if state_changed or progress_changed then
    run.seq := run.seq + 1;
    run.updated_at := now();
  end if;

  if jsonb_array_length(element -> 'logs') > 0 then
    if is_new then
      before.attempt := attempt;
      before.version := -1;
      before.log_seq := 0;
    end if;
    lines := taskcast.new_lines(element, before);
    run.log_seq := run.log_seq + jsonb_array_length(lines);
  end if;

  if is_new then
    insert into public.processing_jobs select (run).* on conflict (id) do nothing;
    if not found then
      return taskcast.mirror_run(element);  -- another replica was first
    end if;
  else
    update public.processing_jobs set
      user_id = run.user_id, task = run.task, queue = run.queue, input_file = run.input_file,
      status = run.status, state = run.state, progress = run.progress, current = run.current,
      total = run.total, step = run.step, message = run.message, wait_reason = run.wait_reason,
      queue_position = run.queue_position, attempt = run.attempt, max_attempts = run.max_attempts,
      result = run.result, result_url = run.result_url, error_code = run.error_code,
      error_message = run.error_message, channel = run.channel, parent_id = run.parent_id,
      root_id = run.root_id, metadata = run.metadata, tags = run.tags, seq = run.seq,
      version = run.version, log_seq = run.log_seq, parts = run.parts,
      cancel_requested_at = run.cancel_requested_at, started_at = run.started_at,
      finished_at = run.finished_at, updated_at = run.updated_at
    where id = run.id;
  end if;

  if lines <> '[]' then
    insert into public.processing_job_logs (job_id, seq, user_id, level, message, data, created_at)
    select run.id, line.line, run.user_id, line.level, line.message, nullif(line.data, 'null'), line.at
    from jsonb_to_recordset(lines) as line (line bigint, level text, message text, data jsonb, at timestamptz);
  end if;
  if run.parent_id is not null then
    parents := taskcast.add_up(before, run);
  end if;
  return taskcast.announcement(run) || jsonb_build_object(
    'outcome', 'applied', 'state_changed', state_changed, 'progress_changed', progress_changed,
    'logs', lines, 'parents', parents);
end $$;

create or replace function public.taskcast_schema_version() returns integer
language sql stable set search_path = ''
return 2;
