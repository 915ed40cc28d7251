-- The import of social accounts: accounts, their secrets, posts with embeddings, topics.
-- A user id need not be in auth.users: projects with a third-party sign-in have none there.

create schema if not exists extensions;
create extension if not exists vector with schema extensions;

-- ---------------------------------------------------------------- tables

create table public.social_accounts (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null default auth.uid(),
  provider text not null check (provider in ('mastodon', 'bluesky', 'hackernews', 'reddit', 'feed')),
  handle text not null check (length(handle) between 1 and 500),
  server text check (length(server) between 1 and 2000),   -- null: the provider's own
  status text not null default 'connected' check (status in ('connected', 'failed')),
  last_error text,
  last_imported_at timestamptz,
  cursor jsonb not null default '{}' check (jsonb_typeof(cursor) = 'object'),
  created_at timestamptz not null default now(),
  unique nulls not distinct (user_id, provider, handle, server),
  unique (id, user_id)                                     -- what posts refer to, so that both ids agree
);

-- Apart from the account, because a user may read all of that row and his browser must never see a token.
create table public.social_account_secrets (
  account_id uuid primary key references public.social_accounts (id) on delete cascade,
  access_token text not null check (length(access_token) between 1 and 8000)
);

create table public.posts (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null,
  account_id uuid not null,
  external_id text not null check (length(external_id) between 1 and 500),
  provider text not null,
  author text not null default '',
  content text not null,                                   -- plain text; empty where a post is a picture only
  language text,
  url text check (url ~ '^https?://'),
  published_at timestamptz,
  -- Without fixed dimensions: the local embedder and the API's models differ, a deployment may change its
  -- model, and both may stand side by side while posts are embedded anew. The price is that no index
  -- covers it, which a search within one user's posts does not need.
  embedding extensions.vector,
  embedding_model text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (account_id, external_id),
  check ((embedding is null) = (embedding_model is null)),
  foreign key (account_id, user_id) references public.social_accounts (id, user_id) on delete cascade
);

create index posts_of_user on public.posts (user_id, published_at desc);
create index posts_in_order on public.posts (user_id, id);

create table public.topics (
  id uuid primary key default gen_random_uuid(),
  user_id uuid not null,
  label text not null check (length(label) between 1 and 500),
  keywords text[] not null default '{}',
  size integer not null check (size >= 0),
  example_post_ids uuid[] not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (user_id, label)
);

create table public.post_topics (
  post_id uuid not null references public.posts (id) on delete cascade,
  topic_id uuid not null references public.topics (id) on delete cascade,
  user_id uuid not null,
  score real not null,
  primary key (topic_id, post_id)
);

create index post_topics_of_post on public.post_topics (post_id);
create index post_topics_of_user on public.post_topics (user_id);

-- ---------------------------------------------------------------- who may do what

alter table public.social_accounts enable row level security;
alter table public.social_account_secrets enable row level security;   -- and no policy: nobody's but the service's
alter table public.posts enable row level security;
alter table public.topics enable row level security;
alter table public.post_topics enable row level security;

revoke all on public.social_accounts, public.social_account_secrets, public.posts, public.topics,
  public.post_topics from public, anon, authenticated;
grant all on public.social_accounts, public.social_account_secrets, public.posts, public.topics,
  public.post_topics to service_role;
grant select on public.social_accounts, public.posts, public.topics, public.post_topics to authenticated;
grant delete on public.social_accounts to authenticated;
-- Not the cursor, not the status: those are the importer's.
grant insert (user_id, provider, handle, server) on public.social_accounts to authenticated;

create policy "users see their own accounts" on public.social_accounts
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users connect accounts of their own" on public.social_accounts
  for insert to authenticated with check (user_id = (select auth.uid()));
create policy "users disconnect their own accounts" on public.social_accounts
  for delete to authenticated using (user_id = (select auth.uid()));
create policy "users see their own posts" on public.posts
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see their own topics" on public.topics
  for select to authenticated using (user_id = (select auth.uid()));
create policy "users see the topics of their own posts" on public.post_topics
  for select to authenticated using (user_id = (select auth.uid()));

-- ---------------------------------------------------------------- how many

-- A run imports one account after the other: without a bound, one user would keep a worker for days.
create function public.bound_social_accounts() returns trigger
language plpgsql
set search_path = ''
as $$
begin
  if exists (
    select from public.social_accounts a
    where a.user_id in (select n.user_id from added n)
    group by a.user_id having count(*) > 100
  ) then
    raise exception 'at most 100 accounts can be connected' using errcode = '23514';
  end if;
  return null;
end
$$;

revoke execute on function public.bound_social_accounts() from public, anon, authenticated;

create trigger bound_social_accounts after insert on public.social_accounts
  referencing new table as added for each statement execute function public.bound_social_accounts();

-- ---------------------------------------------------------------- the token, written and never read back

create function public.set_social_account_token(account_id uuid, access_token text)
returns void
language plpgsql
security definer
set search_path = ''
as $$
begin
  if not exists (
    select 1 from public.social_accounts a
    where a.id = set_social_account_token.account_id and a.user_id = (select auth.uid())
  ) then
    raise exception 'no such account' using errcode = 'P0002';
  end if;
  insert into public.social_account_secrets as s (account_id, access_token)
  values (set_social_account_token.account_id, set_social_account_token.access_token)
  on conflict on constraint social_account_secrets_pkey do update set access_token = excluded.access_token;
end
$$;

revoke execute on function public.set_social_account_token(uuid, text) from public, anon;
grant execute on function public.set_social_account_token(uuid, text) to authenticated;

-- ---------------------------------------------------------------- what the workers call

-- Stores posts and the cursor that follows them in one transaction; may be repeated. Posts whose text
-- changed lose their embedding; unchanged ones are not written. A null cursor leaves the stored one.
create function public.store_posts(p_account uuid, p_posts jsonb, p_cursor jsonb)
returns table (inserted integer, updated integer)
language plpgsql
set search_path = ''
as $$
declare
  v_account public.social_accounts;
begin
  -- Two imports of one account take turns.
  select * into v_account from public.social_accounts where id = p_account for no key update;
  if not found then
    raise exception 'account % was removed', p_account using errcode = 'P0002';
  end if;

  return query
  with given as (
    select distinct on (p.external_id) p.*
    from jsonb_to_recordset(p_posts) as p(
      external_id text, author text, content text, language text, url text, published_at timestamptz)
    order by p.external_id
  ), written as (
    insert into public.posts as stored
      (user_id, account_id, provider, external_id, author, content, language, url, published_at)
    select v_account.user_id, v_account.id, v_account.provider,
           g.external_id, coalesce(g.author, ''), g.content, g.language, g.url, g.published_at
    from given g
    on conflict (account_id, external_id) do update set
      author = excluded.author, content = excluded.content, language = excluded.language,
      url = excluded.url, published_at = excluded.published_at, updated_at = now(),
      embedding = case when stored.content = excluded.content then stored.embedding end,
      embedding_model = case when stored.content = excluded.content then stored.embedding_model end
    where (stored.author, stored.content, stored.language, stored.url, stored.published_at)
      is distinct from
      (excluded.author, excluded.content, excluded.language, excluded.url, excluded.published_at)
    returning (stored.xmax = 0) as is_new
  )
  select count(*) filter (where w.is_new)::integer, count(*) filter (where not w.is_new)::integer
  from written w;

  if p_cursor is not null then
    update public.social_accounts set cursor = p_cursor where id = p_account;
  end if;
end
$$;

-- Sets embeddings by post id; p_embeddings is [{"id", "md5" of the text that was embedded, "embedding": "[0.1,...]"}].
-- A post that was changed or removed since it was read is passed over.
create function public.set_embeddings(p_model text, p_embeddings jsonb)
returns integer
language plpgsql
set search_path = ''
as $$
declare
  v_count integer;
begin
  update public.posts p
  set embedding = e.embedding::extensions.vector, embedding_model = p_model
  from jsonb_to_recordset(p_embeddings) as e(id uuid, md5 text, embedding text)
  where p.id = e.id and pg_catalog.md5(p.content) = e.md5;
  get diagnostics v_count = row_count;
  return v_count;
end
$$;

-- Puts these topics in the place of all topics of the user, in one transaction; may be repeated.
-- A topic that keeps its label keeps its id. p_topics is
-- [{"label", "keywords", "example_post_ids", "members": {post id: score}}].
create function public.replace_topics(p_user uuid, p_topics jsonb)
returns integer
language plpgsql
set search_path = ''
as $$
begin
  -- Accounts imported side by side end here at the same time.
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended('replace_topics:' || p_user, 0));

  delete from public.topics t
  where t.user_id = p_user and t.label not in (select g ->> 'label' from jsonb_array_elements(p_topics) g);

  insert into public.topics (user_id, label, keywords, size, example_post_ids)
  select p_user, g ->> 'label',
         array(select jsonb_array_elements_text(g -> 'keywords')),
         (select count(*) from jsonb_object_keys(g -> 'members')),
         array(select jsonb_array_elements_text(g -> 'example_post_ids')::uuid)
  from jsonb_array_elements(p_topics) g
  on conflict (user_id, label) do update set
    keywords = excluded.keywords, size = excluded.size,
    example_post_ids = excluded.example_post_ids, updated_at = now();

  delete from public.post_topics where user_id = p_user;
  -- A post may have been removed while the topics were made; then it is in none.
  insert into public.post_topics (post_id, topic_id, user_id, score)
  select p.id, t.id, p_user, m.value::real
  from jsonb_array_elements(p_topics) g
  join public.topics t on t.user_id = p_user and t.label = g ->> 'label'
  cross join lateral jsonb_each_text(g -> 'members') as m(key, value)
  join public.posts p on p.id = m.key::uuid and p.user_id = p_user;

  return jsonb_array_length(p_topics);
end
$$;

revoke execute on function
  public.store_posts(uuid, jsonb, jsonb),
  public.set_embeddings(text, jsonb),
  public.replace_topics(uuid, jsonb)
  from public, anon, authenticated;
grant execute on function
  public.store_posts(uuid, jsonb, jsonb),
  public.set_embeddings(text, jsonb),
  public.replace_topics(uuid, jsonb)
  to service_role;
