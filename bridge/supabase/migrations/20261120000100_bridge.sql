-- Runs, their log lines and the tickets that ask for runs; the one function that writes runs.

create schema if not exists taskcast;
revoke all on schema taskcast from public;
grant usage on schema taskcast to service_role;

-- ---------------------------------------------------------------- tables

create table public.processing_jobs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid,                                      -- null: a run of nobody, seen by the service role only
  task text,
  queue text,
  input_file text,
  status text not null default 'queued' check (status in (
    'scheduled', 'queued', 'waiting', 'in_progress', 'retrying', 'cancelling',
    'completed', 'failed', 'cancelled', 'expired')),
  state text,                                        -- the exact Celery state
  progress integer not null default 0 check (progress between 0 and 100),
  current bigint,
  total bigint,
  step text,
  message text,
  wait_reason text,
  queue_position integer,
  attempt integer not null default 1,
  max_attempts integer,
  result jsonb,
  result_url text,
  error_code text,
  error_message text,
  channel text,
  parent_id uuid,                                    -- no foreign key: a child may be written first
  root_id uuid,
  metadata jsonb,
  tags text[],
  seq bigint not null default 0,                     -- rises with every change of the public snapshot
  version bigint not null default 0,                 -- the newest outbox entry seen of this attempt
  log_seq bigint not null default 0,
  parts integer not null default 1,                  -- what this run adds to its parent's parts_total
  parts_total integer not null default 0,
  parts_progress bigint not null default 0,          -- the children's percents, added up
  cancel_requested_at timestamptz,
  created_at timestamptz not null default now(),
  started_at timestamptz,
  finished_at timestamptz,
  updated_at timestamptz not null default now()
) with (fillfactor = 75);                            -- room for progress updates beside the row (HOT)

create index processing_jobs_of_user on public.processing_jobs (user_id, created_at desc);
create index processing_jobs_of_parent on public.processing_jobs (parent_id) where parent_id is not null;
create index processing_jobs_alive on public.processing_jobs (status, created_at)
  where status not in ('completed', 'failed', 'cancelled', 'expired');

create table public.processing_job_logs (
  job_id uuid not null references public.processing_jobs (id) on delete cascade,
  seq bigint not null,
  user_id uuid,
  level text not null check (level in ('debug', 'info', 'warning', 'error')),
  message text not null,
  data jsonb,
  created_at timestamptz not null default now(),
  primary key (job_id, seq)
);

create table public.background_jobs (
  id uuid primary key default gen_random_uuid(),
  user_id uuid default auth.uid(),
  task text not null check (length(task) between 1 and 200),
  args jsonb not null default '{}' check (jsonb_typeof(args) = 'object' and length(args::text) <= 65536),
  status text not null default 'pending'
    check (status in ('pending', 'processing', 'completed', 'failed', 'cancelled')),
  run_at timestamptz,
  priority integer not null default 0,
  idempotency_key text check (length(idempotency_key) <= 200),
  error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create index background_jobs_of_user on public.background_jobs (user_id, created_at desc);
create index background_jobs_pending on public.background_jobs (priority desc, created_at)
  where status = 'pending';
create unique index background_jobs_once on public.background_jobs (user_id, idempotency_key)
  nulls not distinct where idempotency_key is not null;

alter publication supabase_realtime
  add table public.processing_jobs, public.processing_job_logs, public.background_jobs;

-- ---------------------------------------------------------------- who may do what

alter table public.processing_jobs enable row level security;
alter table public.processing_job_logs enable row level security;
alter table public.background_jobs enable row level security;

revoke all on public.processing_jobs, public.processing_job_logs, public.background_jobs
  from public, anon, authenticated;
grant all on public.processing_jobs, public.processing_job_logs, public.background_jobs to service_role;
grant select on public.processing_jobs, public.processing_job_logs, public.background_jobs to authenticated;
-- Not the id (a ticket's id becomes a run's id), not the priority, no times of ours.
grant insert (user_id, task, args, status, run_at, idempotency_key) on public.background_jobs to authenticated;

create policy "users see their own runs" on public.processing_jobs
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see the log lines of their own runs" on public.processing_job_logs
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own tickets" on public.background_jobs
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users write tickets of their own" on public.background_jobs
  for insert to authenticated with check (user_id = (select auth.uid()) and status = 'pending');

-- Receiving only: nobody but the service role sends, so no policy allows an insert.
create policy "users receive on their own channels" on realtime.messages
  for select to authenticated using (
    extension in ('broadcast', 'presence')
    and right((select realtime.topic()), 37) = '-' || (select auth.uid())::text
  );

-- ---------------------------------------------------------------- the mirror

create function taskcast.is_final(status text) returns boolean
language sql immutable parallel safe set search_path = ''
return status in ('completed', 'failed', 'cancelled', 'expired');

-- What everybody who may see the run is shown of it: the payload of every broadcast.
create function taskcast.snapshot(run public.processing_jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return jsonb_build_object(
    'run_id', run.id, 'task', run.task, 'status', run.status, 'state', run.state,
    'progress', run.progress, 'current', run.current, 'total', run.total,
    'step', run.step, 'message', run.message,
    'attempt', run.attempt, 'max_attempts', run.max_attempts,
    'wait_reason', run.wait_reason, 'queue_position', run.queue_position,
    'result', run.result, 'result_url', run.result_url,
    'error_code', run.error_code, 'error_message', run.error_message,
    'parent_id', run.parent_id, 'seq', run.seq, 'at', run.updated_at,
    'created_at', run.created_at, 'started_at', run.started_at, 'finished_at', run.finished_at);
end $$;

create function taskcast.announcement(run public.processing_jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return jsonb_build_object('id', run.id, 'channel', run.channel, 'snapshot', taskcast.snapshot(run));
end $$;

-- The ancestors as they are, nearest first; 16 deep at most, so that a loop of ids ends.
create function taskcast.ancestors(run public.processing_jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  ancestor public.processing_jobs := run;
  found_so_far jsonb := '[]';
begin
  for depth in 1..16 loop
    exit when ancestor.parent_id is null;
    select * into ancestor from public.processing_jobs where id = ancestor.parent_id;
    exit when not found;
    found_so_far := found_so_far || taskcast.announcement(ancestor);
  end loop;
  return found_so_far;
end $$;

-- A run's share of its parent's sum: anything final counts as done.
create function taskcast.share(run public.processing_jobs) returns integer
language plpgsql immutable set search_path = '' as $$
begin
  return case when taskcast.is_final(run.status) then 100 else coalesce(run.progress, 0) end;
end $$;

-- Adds what changed on a child up into its parents; returns the announcements of those that changed.
create function taskcast.add_up(before public.processing_jobs, child public.processing_jobs) returns jsonb
language plpgsql set search_path = '' as $$
declare
  parent public.processing_jobs;
  was public.processing_jobs;
  changed jsonb := '[]';
  above uuid := child.parent_id;
  joins boolean := before.parent_id is null;
  more_parts integer := case when joins then child.parts else 0 end;
  more_progress integer := taskcast.share(child) - case when joins then 0 else taskcast.share(before) end;
  said text := case when child.message is distinct from before.message then child.message end;
  stepped text := case when child.step is distinct from before.step then child.step end;
begin
  for depth in 1..16 loop
    exit when above is null
      or (more_parts = 0 and more_progress = 0 and said is null and stepped is null);
    select * into parent from public.processing_jobs where id = above for update;
    exit when not found or taskcast.is_final(parent.status);
    was := parent;
    parent.parts_total := parent.parts_total + more_parts;
    parent.parts_progress := parent.parts_progress + more_progress;
    -- A parent that reports counts of its own knows better how far it is.
    if parent.parts_total > 0 and parent.current is null and (more_parts <> 0 or more_progress <> 0) then
      parent.progress := greatest(0, least(100, parent.parts_progress / parent.parts_total));
    end if;
    parent.message := coalesce(said, parent.message);
    parent.step := coalesce(stepped, parent.step);
    if (parent.progress, parent.message, parent.step) is distinct from (was.progress, was.message, was.step) then
      parent.seq := parent.seq + 1;
      parent.updated_at := now();
      changed := changed || taskcast.announcement(parent);
    end if;
    update public.processing_jobs set
      parts_total = parent.parts_total, parts_progress = parent.parts_progress, progress = parent.progress,
      message = parent.message, step = parent.step, seq = parent.seq, updated_at = parent.updated_at
    where id = parent.id;
    above := parent.parent_id;
    more_parts := 0;
    more_progress := parent.progress - was.progress;
  end loop;
  return changed;
end $$;

-- The lines of an element that this run does not have yet, numbered on from its last one.
create function taskcast.new_lines(element jsonb, run public.processing_jobs) returns jsonb
language plpgsql stable set search_path = '' as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object(
      'line', run.log_seq + fresh.number, 'level', fresh.line -> 'level', 'message', fresh.line -> 'message',
      'data', fresh.line -> 'data', 'at', to_timestamp((fresh.line ->> 'at')::double precision)
    ) order by fresh.number), '[]')
    from (
      select line, row_number() over (order by place) as number
      from jsonb_array_elements(element -> 'logs') with ordinality as given (line, place)
      where (element ->> 'attempt')::integer > run.attempt or (line ->> 'v')::bigint > run.version
    ) as fresh
  );
end $$;

-- The row after an element, all columns but the counters; `before` is null for a new run.
create function taskcast.merged(before public.processing_jobs, element jsonb) returns public.processing_jobs
language plpgsql stable set search_path = '' as $$
declare
  happened timestamptz := to_timestamp((element ->> 'at')::double precision);
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
  if (element ->> 'fresh')::boolean and run.attempt = before.attempt
     and before.status not in ('scheduled', 'queued', 'waiting', 'retrying') then
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
  if run.status = 'in_progress' or taskcast.is_final(run.status) then
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
create function taskcast.mirror_run(element jsonb) returns jsonb
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
    (run.status, run.state, run.task, run.attempt, run.max_attempts, run.wait_reason, run.queue_position,
     run.result, run.error_code, run.error_message, run.parent_id, run.started_at, run.finished_at)
    is distinct from
    (before.status, before.state, before.task, before.attempt, before.max_attempts, before.wait_reason,
     before.queue_position, before.result, before.error_code, before.error_message, before.parent_id,
     before.started_at, before.finished_at);
  progress_changed := taskcast.is_final(run.status) or
    (run.progress, run.current, run.total, run.message, run.step, run.result_url) is distinct from
    (coalesce(before.progress, 0), before.current, before.total, before.message, before.step, before.result_url);
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

-- Writes a batch of patches in order, each of them harmless a second time, and says what each one did.
--
-- batch:   [{"id", "attempt", "version", "at", "fresh", "existing", "parts", "set": {column: value},
--            "logs": [{"v", "level", "message", "data", "at"}]}], times in seconds since the epoch.
-- returns: in the same order {"id", "outcome": applied | duplicate | stale | final | unknown} and,
--          for applied and duplicate, "channel", "snapshot", "parents": [{"id", "channel", "snapshot"}];
--          for applied also "state_changed", "progress_changed",
--          "logs": [{"line", "level", "message", "data", "at"}] as far as newly written.
create function public.mirror_runs(batch jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  element jsonb;
  results jsonb[] := '{}';
begin
  for element in select value from jsonb_array_elements(batch) loop
    results := results || taskcast.mirror_run(element);
  end loop;
  return to_jsonb(results);
end $$;

-- The current snapshots of these runs, as {"id", "channel", "snapshot"}; unknown ids are left out.
create function public.run_snapshots(ids uuid[]) returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_agg(taskcast.announcement(run)), '[]')
  from public.processing_jobs as run where run.id = any (ids);
$$;

-- Rises with every migration that the bridge's code relies on.
-- Stable, though it is a constant: an immutable call is folded into the plan, and a plan that PostgREST
-- prepared for the service role would answer everybody without asking for the right to call.
create function public.taskcast_schema_version() returns integer
language sql stable set search_path = ''
return 1;

revoke all on all functions in schema taskcast from public;
grant execute on all functions in schema taskcast to service_role;
revoke all on function public.mirror_runs(jsonb), public.run_snapshots(uuid[]), public.taskcast_schema_version()
  from public, anon, authenticated;
grant execute on function
  public.mirror_runs(jsonb), public.run_snapshots(uuid[]), public.taskcast_schema_version() to service_role;
