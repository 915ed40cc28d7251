-- What the reaper needs: which rows have been quiet for long, and a way to mend only what has not moved since.

-- Of several deployments that share a project, each sees to its own rows: it alone knows where its runs are.
alter table public.processing_jobs add column deployment text;
alter table public.background_jobs add column claimed_by text;

-- Runs of a deployment that are not final and that nothing was heard of for `quiet` seconds, by id.
-- Left out: runs that no queue has brought (`apply()` and eager tasks, which execute in app code), and
-- runs whose children go on or have just ended, as a run that went on as a chord has nothing else to show.
-- returns: [{"id", "root", "queue", "task", "status", "attempt", "version"}], at most `most`, above the id `after`
create function public.quiet_runs(deployment text, quiet double precision, after uuid, most integer)
returns jsonb
language sql stable set search_path = '' as $$
  with alive as materialized (
    select run.* from public.processing_jobs as run
    where run.status not in ('completed', 'failed', 'cancelled', 'expired')
      and run.deployment = quiet_runs.deployment and run.queue is not null
      and run.updated_at < now() - make_interval(secs => quiet)
      and not exists (
        select from public.processing_jobs as child
        where child.parent_id = run.id
          and (not taskcast.is_final(child.status) or child.updated_at >= now() - make_interval(secs => quiet)))
  ), page as (
    select * from alive where id > after order by id limit most
  )
  select coalesce(jsonb_agg(jsonb_build_object(
    'id', id, 'root', root_id, 'queue', queue, 'task', task, 'status', status,
    'attempt', attempt, 'version', version) order by id), '[]')
  from page;
$$;

-- Tickets that a deployment has claimed, and of which no run has come within `quiet` seconds.
-- returns: [{"id", "claimed_at"}], the longest claimed first
create function public.quiet_tickets(deployment text, quiet double precision, most integer) returns jsonb
language sql stable set search_path = '' as $$
  with claimed as (
    select ticket.id, ticket.updated_at from public.background_jobs as ticket
    where ticket.status = 'processing' and ticket.claimed_by = quiet_tickets.deployment
      and ticket.updated_at < now() - make_interval(secs => quiet)
      and not exists (select from public.processing_jobs as run where run.id = ticket.id)
    order by ticket.updated_at limit most
  )
  select coalesce(jsonb_agg(jsonb_build_object('id', id, 'claimed_at', updated_at) order by updated_at), '[]')
  from claimed;
$$;

-- Gives tickets back that nothing has happened to since `claimed_at`, to be claimed again.
-- tickets: [{"id", "claimed_at"}]; returns how many
create function public.return_tickets(tickets jsonb) returns integer
language sql set search_path = '' as $$
  with returned as (
    update public.background_jobs as ticket set status = 'pending', claimed_by = null, updated_at = now()
    from jsonb_to_recordset(tickets) as given (id uuid, claimed_at timestamptz)
    where ticket.id = given.id and ticket.status = 'processing' and ticket.updated_at = given.claimed_at
      and not exists (select from public.processing_jobs as run where run.id = ticket.id)
    returning 1
  )
  select count(*)::integer from returned;
$$;

-- Whether the row has moved on from the version that an element was written for. The element's own version
-- is no such move: what is written twice is a duplicate, and told of as one.
create function taskcast.is_overtaken(element jsonb) returns boolean
language plpgsql set search_path = '' as $$
declare
  current bigint;
begin
  if not element ? 'expected' then
    return false;
  end if;
  select version into current from public.processing_jobs where id = (element ->> 'id')::uuid for update;
  return current <> (element ->> 'expected')::bigint and current < (element ->> 'version')::bigint;
end $$;

-- As before, and an element may say which version of its row it expects: {"expected": version}.
create or replace function public.mirror_runs(batch jsonb) returns jsonb
language plpgsql set search_path = '' as $$
declare
  element jsonb;
  results jsonb[] := '{}';
begin
  for element in select value from jsonb_array_elements(batch) loop
    if taskcast.is_overtaken(element) then
      results := results || jsonb_build_object('id', element -> 'id', 'outcome', 'stale');
    else
      results := results || taskcast.mirror_run(element);
    end if;
  end loop;
  return to_jsonb(results);
end $$;

create or replace function public.taskcast_schema_version() returns integer
language sql stable set search_path = ''
return 3;

revoke all on function taskcast.is_overtaken(jsonb) from public;
grant execute on function taskcast.is_overtaken(jsonb) to service_role;
revoke all on function public.quiet_runs(text, double precision, uuid, integer),
  public.quiet_tickets(text, double precision, integer), public.return_tickets(jsonb)
  from public, anon, authenticated;
grant execute on function public.quiet_runs(text, double precision, uuid, integer),
  public.quiet_tickets(text, double precision, integer), public.return_tickets(jsonb) to service_role;
