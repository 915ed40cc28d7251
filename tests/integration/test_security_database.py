"""Least privilege in the database: what anon and authenticated may do is what stands on these lists."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from bridge.local.running import RunningStack

# What authenticated may do with each table; in brackets, the columns where it is not all. anon: nothing.
TABLES = {
    "processing_jobs": {"SELECT"},
    "processing_job_logs": {"SELECT"},
    "background_jobs": {"SELECT", "INSERT(args,idempotency_key,run_at,status,task,user_id)"},
    "social_accounts": {"SELECT", "DELETE", "INSERT(handle,provider,server,user_id)"},
    "social_account_secrets": set[str](),
    "posts": {"SELECT"},
    "topics": {"SELECT"},
    "post_topics": {"SELECT"},
}
FUNCTIONS = {"set_social_account_token(uuid,text)": {"authenticated"}}
DEFINERS = {"set_social_account_token(uuid,text)"}
PUBLISHED = {"processing_jobs", "processing_job_logs", "background_jobs"}
CLIENTS = ("anon", "authenticated")


@pytest.fixture(scope="module")
def database(stack: RunningStack) -> Iterator[psycopg.Connection]:
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        yield connection


def _column(database: psycopg.Connection, query: str, *values: object) -> set[str]:
    return {row[0] for row in database.execute(query, values)}  # type: ignore[arg-type]


def test_every_relation_of_public_is_on_the_list(database: psycopg.Connection) -> None:
    """Views, materialized views and foreign tables too: none of them knows row level security by itself."""
    relations = _column(
        database,
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in "
        "('r', 'p', 'v', 'm', 'f') and relname not like 'gateway\\_%%' and relname not like 'test\\_%%'",
    )
    assert relations == set(TABLES)


def test_every_table_has_row_level_security(database: psycopg.Connection) -> None:
    open_to_all = _column(
        database,
        "select relnamespace::regnamespace || '.' || relname from pg_class where relkind in ('r', 'p') and "
        "relnamespace in ('public'::regnamespace, 'auth'::regnamespace, 'realtime'::regnamespace) "
        "and not relrowsecurity",
    )
    assert open_to_all == set()


@pytest.mark.parametrize("table", TABLES)
def test_clients_hold_the_listed_privileges_and_no_others(database: psycopg.Connection, table: str) -> None:
    held: dict[str, set[str]] = {}
    rows = database.execute(
        """
        select role, privilege, has_table_privilege(role, %(table)s, privilege),
          array(select attname::text from pg_attribute where attrelid = %(table)s::regclass and attnum > 0
            and not attisdropped and privilege in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
            and has_column_privilege(role, attrelid, attnum,
              case when privilege in ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
              then privilege else 'SELECT' end)
            order by attname)
        from unnest(%(roles)s::text[]) role, unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',
          'REFERENCES', 'TRIGGER', 'MAINTAIN']) privilege
        """,
        {"table": f"public.{table}", "roles": list(CLIENTS)},
    )
    for role, privilege, on_table, columns in rows:
        if on_table or columns:
            held.setdefault(role, set()).add(privilege if on_table else f"{privilege}({','.join(columns)})")
    assert held == ({"authenticated": TABLES[table]} if TABLES[table] else {})


def test_policies_are_for_signed_in_users_and_ask_whose_a_row_is(database: psycopg.Connection) -> None:
    policies = database.execute(
        "select tablename, policyname, roles::text[], permissive, "
        "coalesce(qual, '') || coalesce(with_check, '') "
        "from pg_policies where schemaname = 'public' and tablename = any(%s)",
        [list(TABLES)],
    ).fetchall()
    assert policies
    for table, name, roles, permissive, condition in policies:
        assert roles == ["authenticated"], (table, name)
        assert permissive == "PERMISSIVE"
        assert "user_id = ( SELECT auth.uid()" in condition, (table, name)


def test_functions_are_called_by_those_meant(database: psycopg.Connection) -> None:
    callable_by: dict[str, set[str]] = {}
    rows = database.execute(
        """
        select p.oid::regprocedure::text, role from pg_proc p, unnest(%s::text[]) role
        where pronamespace in ('public'::regnamespace, 'taskcast'::regnamespace)
          and has_function_privilege(role, p.oid, 'execute')
        """,
        [list(CLIENTS)],
    )
    for function, role in rows:
        callable_by.setdefault(function.removeprefix("public."), set()).add(role)
    assert callable_by == FUNCTIONS


def test_functions_look_names_up_where_nobody_else_writes(database: psycopg.Connection) -> None:
    loose = _column(
        database,
        "select oid::regprocedure::text from pg_proc where pronamespace in "
        "('public'::regnamespace, 'taskcast'::regnamespace) "
        "and not coalesce(proconfig::text[] && array['search_path=\"\"', 'search_path='], false)",
    )
    assert loose == set()


def test_functions_with_their_owners_rights_are_on_the_list(database: psycopg.Connection) -> None:
    definers = _column(
        database,
        "select oid::regprocedure::text from pg_proc where prosecdef "
        "and pronamespace in ('public'::regnamespace, 'taskcast'::regnamespace, 'realtime'::regnamespace)",
    )
    assert {name.removeprefix("public.") for name in definers} == DEFINERS


@pytest.mark.parametrize("schema", ["taskcast", "supabase_migrations"])
def test_inner_schemas_are_closed(database: psycopg.Connection, schema: str) -> None:
    for role in CLIENTS:
        query = "select has_schema_privilege(%s, %s, 'usage') or has_schema_privilege(%s, %s, 'create')"
        assert database.execute(query, [role, schema, role, schema]).fetchone() == (False,)


def test_clients_create_nothing(database: psycopg.Connection) -> None:
    writable = _column(
        database,
        "select nspname from pg_namespace, unnest(%s::text[]) role "
        "where has_schema_privilege(role, oid, 'create') and nspname !~ '^pg_'",
        list(CLIENTS),
    )
    assert writable == set()


def test_only_the_rows_meant_for_browsers_are_published(database: psycopg.Connection) -> None:
    published = _column(
        database,
        "select tablename from pg_publication_tables where pubname = 'supabase_realtime' "
        "and tablename not like 'gateway\\_%%' and tablename not like 'test\\_%%'",
    )
    assert (
        published & {"social_accounts", "social_account_secrets", "posts", "topics", "post_topics"} == set()
    )
    assert published >= PUBLISHED


def test_old_rows_tell_no_more_than_their_key(database: psycopg.Connection) -> None:
    """A DELETE reaches every subscriber with the replica identity of the row."""
    wider = _column(
        database,
        "select relname from pg_class where relname = any(%s) and relreplident <> 'd'",
        list(PUBLISHED),
    )
    assert wider == set()


def test_sending_on_channels_is_nobodys(database: psycopg.Connection) -> None:
    commands = database.execute(
        "select cmd, roles::text[] from pg_policies "
        "where schemaname = 'realtime' and policyname like 'users %%'"
    ).fetchall()
    assert commands == [("SELECT", ["authenticated"])]
