-- What a Supabase project's database has before any migration: roles, schemas, grants, auth.
-- Repeatable: a kept database gets it again when this file changes.

create or replace procedure pg_temp.make_role(name text, options text) language plpgsql as $$
begin
  if not exists (select from pg_roles where rolname = name) then
    execute format('create role %I', name);
  end if;
  execute format('alter role %I with %s', name, options);
end $$;

call pg_temp.make_role('anon', 'nologin noinherit');
call pg_temp.make_role('authenticated', 'nologin noinherit');
call pg_temp.make_role('service_role', 'nologin noinherit bypassrls');
call pg_temp.make_role('authenticator', 'login noinherit');
call pg_temp.make_role('supabase_admin', 'login superuser createrole createdb replication bypassrls');
call pg_temp.make_role('supabase_auth_admin', 'login noinherit createrole');
call pg_temp.make_role('supabase_realtime_admin', 'nologin noinherit');
call pg_temp.make_role('dashboard_user', 'nologin createrole createdb replication');

grant anon, authenticated, service_role to authenticator;
grant anon, authenticated, service_role, supabase_realtime_admin, supabase_auth_admin to postgres;

alter role supabase_auth_admin set search_path = auth;
-- Realtime's role, which polls a slot many times a second; Postgres logs ten lines each time that it does.
alter role supabase_admin set log_min_messages = 'fatal';
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
alter role authenticator set statement_timeout = '8s';
alter role authenticator set lock_timeout = '8s';

create schema if not exists extensions;
create schema if not exists auth authorization supabase_auth_admin;
grant usage on schema public, extensions, auth to anon, authenticated, service_role;
grant all on schema public, extensions to postgres;

alter database postgres set search_path = "$user", public, extensions;
set search_path = "$user", public, extensions;
create extension if not exists vector with schema extensions;

alter default privileges in schema public
  grant all on tables to postgres, anon, authenticated, service_role;
alter default privileges in schema public
  grant all on functions to postgres, anon, authenticated, service_role;
alter default privileges in schema public
  grant all on sequences to postgres, anon, authenticated, service_role;

do $$ begin
  if not exists (select from pg_publication where pubname = 'supabase_realtime') then
    create publication supabase_realtime;
  end if;
end $$;

-- Auth ----------------------------------------------------------------------------------------------------

create table if not exists auth.users (
  instance_id uuid,
  id uuid primary key default gen_random_uuid(),
  aud text not null default 'authenticated',
  role text not null default 'authenticated',
  email text,
  phone text unique,
  encrypted_password text,
  email_confirmed_at timestamptz,
  phone_confirmed_at timestamptz,
  confirmed_at timestamptz generated always as (least(email_confirmed_at, phone_confirmed_at)) stored,
  invited_at timestamptz,
  last_sign_in_at timestamptz,
  raw_app_meta_data jsonb not null default '{}',
  raw_user_meta_data jsonb not null default '{}',
  is_super_admin boolean,
  is_sso_user boolean not null default false,
  is_anonymous boolean not null default false,
  banned_until timestamptz,
  deleted_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create unique index if not exists users_email_key on auth.users (lower(email));

create table if not exists auth.identities (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  provider text not null,
  provider_id text not null,
  identity_data jsonb not null default '{}',
  last_sign_in_at timestamptz not null default now(),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (provider, provider_id)
);
create index if not exists identities_user_id on auth.identities (user_id);

create table if not exists auth.sessions (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null references auth.users on delete cascade,
  amr jsonb not null default '[]',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index if not exists sessions_user_id on auth.sessions (user_id);

create table if not exists auth.refresh_tokens (
  token text primary key,
  session_id uuid not null references auth.sessions on delete cascade,
  parent text,
  revoked_at timestamptz,
  created_at timestamptz not null default now()
);
create index if not exists refresh_tokens_session_id on auth.refresh_tokens (session_id);

alter table auth.users enable row level security;
alter table auth.identities enable row level security;
alter table auth.sessions enable row level security;
alter table auth.refresh_tokens enable row level security;
alter table auth.users owner to supabase_auth_admin;
alter table auth.identities owner to supabase_auth_admin;
alter table auth.sessions owner to supabase_auth_admin;
alter table auth.refresh_tokens owner to supabase_auth_admin;

create or replace function auth.jwt() returns jsonb language sql stable as $$
  select nullif(current_setting('request.jwt.claims', true), '')::jsonb
$$;
-- The single-claim settings come first: older clients and tests set those by hand.
create or replace function auth.uid() returns uuid language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''), auth.jwt() ->> 'sub')::uuid
$$;
create or replace function auth.role() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.role', true), ''), auth.jwt() ->> 'role')
$$;
create or replace function auth.email() returns text language sql stable as $$
  select coalesce(nullif(current_setting('request.jwt.claim.email', true), ''), auth.jwt() ->> 'email')
$$;
grant execute on function auth.jwt(), auth.uid(), auth.role(), auth.email() to public;

-- The Supabase CLI's book of applied migrations.
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (
  version text primary key,
  statements text[],
  name text
);

-- As a project does: PostgREST learns of a table or function the moment it is made or dropped.
create or replace function extensions.tell_postgrest() returns event_trigger
language plpgsql set search_path = '' as $$
begin
  if tg_event = 'sql_drop' or exists (
    select from pg_event_trigger_ddl_commands() as command where command.schema_name is distinct from 'pg_temp'
  ) then
    notify pgrst, 'reload schema';
  end if;
end $$;
drop event trigger if exists pgrst_ddl_watch;
create event trigger pgrst_ddl_watch on ddl_command_end execute function extensions.tell_postgrest();
drop event trigger if exists pgrst_drop_watch;
create event trigger pgrst_drop_watch on sql_drop execute function extensions.tell_postgrest();

-- Of uuid-ossp, which these binaries do not carry, the one function that schemas commonly use.
create or replace function extensions.uuid_generate_v4() returns uuid
language sql volatile set search_path = '' return gen_random_uuid();
