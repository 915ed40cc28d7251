-- The database side of Supabase Realtime, as clients and policies see it. Applied once as superuser, after the
-- roles (anon, authenticated, service_role), the schema auth and the publication supabase_realtime exist.
-- Safe to apply again. Unlike the hosted one, realtime.messages is not partitioned by day.

create schema if not exists realtime;
grant usage on schema realtime to anon, authenticated, service_role;

create table if not exists realtime.messages (
    topic text not null,
    extension text not null,
    payload jsonb,
    event text,
    private boolean default false,
    updated_at timestamp not null default (now() at time zone 'utc'),
    inserted_at timestamp not null default (now() at time zone 'utc'),
    id uuid not null default gen_random_uuid(),
    binary_payload bytea,
    primary key (id, inserted_at),
    constraint messages_payload_exclusive check (payload is null or binary_payload is null)
);
alter table realtime.messages enable row level security;
grant select, insert, update on realtime.messages to anon, authenticated, service_role;

create index if not exists messages_replay_index
    on realtime.messages (inserted_at desc, topic) where extension = 'broadcast' and private;

-- The topic that a policy on realtime.messages is being asked about.
create or replace function realtime.topic() returns text
language sql stable
as $$ select nullif(current_setting('realtime.topic', true), '') $$;

-- Broadcasts from SQL. Every error becomes a warning, so that a trigger never fails its statement.
create or replace function realtime.send(payload jsonb, event text, topic text, private boolean default true)
returns void
language plpgsql
as $$
declare
    message_id uuid := gen_random_uuid();
begin
    if not payload ? 'id' then
        payload := jsonb_set(payload, '{id}', to_jsonb(message_id));
    end if;
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (id, payload, event, topic, private, extension)
    values (message_id, payload, event, topic, private, 'broadcast');
exception
    when others then raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;

create or replace function realtime.send_binary(payload bytea, event text, topic text, private boolean default true)
returns void
language plpgsql
as $$
begin
    perform set_config('realtime.topic', topic, true);
    insert into realtime.messages (binary_payload, event, topic, private, extension)
    values (payload, event, topic, private, 'broadcast');
exception
    when others then raise warning 'WarnSendingBroadcastMessage: %', sqlerrm;
end
$$;

-- For row triggers: realtime.broadcast_changes(topic, tg_op, tg_op, tg_table_name, tg_table_schema, new, old).
create or replace function realtime.broadcast_changes(
    topic_name text,
    event_name text,
    operation text,
    table_name text,
    table_schema text,
    new record,
    old record,
    level text default 'ROW'
)
returns void
language plpgsql
as $$
begin
    if level = 'STATEMENT' then
        raise exception 'function can only be triggered for each row, not for each statement';
    end if;
    if operation not in ('INSERT', 'UPDATE', 'DELETE') then
        raise exception 'operation must be INSERT, UPDATE or DELETE, got %', operation;
    end if;
    perform realtime.send(
        jsonb_build_object(
            'schema', table_schema,
            'table', table_name,
            'operation', operation,
            'record', case when operation = 'DELETE' then 'null' else coalesce(to_jsonb(new), 'null') end,
            'old_record', case when operation = 'INSERT' then 'null' else coalesce(to_jsonb(old), 'null') end
        ),
        event_name,
        topic_name
    );
end
$$;

-- Read by the stand-in's replication slot, which turns the inserted rows into broadcasts.
do $$
begin
    if not exists (select from pg_publication where pubname = 'supabase_realtime_messages_publication') then
        create publication supabase_realtime_messages_publication
            for table realtime.messages with (publish = 'insert');
    end if;
end
$$;

-- Which rows may each of several clients see? `askers` are their claims; `keys` the rows each asks about, as
-- arrays of primary key columns in text; `question` selects the positions of the keys in $1 that are visible.
-- A policy that fails shows its client nothing. For the stand-in only.
create or replace function realtime.visible_rows(question text, askers jsonb[], keys jsonb[])
returns table (asker int, positions bigint[])
language plpgsql
as $$
begin
    for n in 1 .. cardinality(askers) loop
        asker := n;
        begin
            perform
                set_config('role', askers[n] ->> 'role', true),
                set_config('request.jwt.claims', askers[n]::text, true),
                set_config('request.jwt.claim.role', askers[n] ->> 'role', true),
                set_config('request.jwt.claim.sub', coalesce(askers[n] ->> 'sub', ''), true);
            execute question into positions using keys[n];
        exception
            when others then positions := null;
        end;
        return next;
    end loop;
    perform set_config('role', 'none', true);
end
$$;
revoke execute on function realtime.visible_rows from public;
