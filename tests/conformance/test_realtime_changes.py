"""postgres_changes: what subscribers get of row changes, by policy, filter and selection."""

from __future__ import annotations

import uuid

import pytest

from tests.conformance.wire import V1, V2

NOTES, PLAIN, SECRETS = "conformance_notes", "conformance_plain", "conformance_secrets"
VERSIONS = pytest.mark.parametrize("vsn", [V1, V2])


@pytest.fixture
def user() -> str:
    return str(uuid.uuid4())


@pytest.fixture
async def database(database):
    await database.execute(f"delete from {NOTES}; delete from {PLAIN}; delete from {SECRETS}")
    return database


async def subscribe(client, topic, token, *bindings):
    """Join with bindings and wait until the server has subscribed; the bindings' ids."""
    wanted = [{"event": "*", "schema": "public", **binding} for binding in bindings]
    _, payload = await client.join(topic, token, postgres_changes=wanted)
    echoed = payload["response"]["postgres_changes"]
    assert [{k: v for k, v in entry.items() if k != "id"} for entry in echoed] == wanted
    assert await client.system() == {
        "message": "Subscribed to PostgreSQL",
        "status": "ok",
        "extension": "postgres_changes",
        "channel": topic,
    }
    return [entry["id"] for entry in echoed]


async def change(client):
    return (await client.event("postgres_changes")).payload


async def refused(client, topic, token, binding):
    """Join with a binding that cannot work: the join is fine, a system message tells."""
    await client.joined(topic, token, postgres_changes=[binding])
    system = await client.system()
    assert (system["status"], system["extension"]) == ("error", "postgres_changes")
    return system["message"]


@VERSIONS
async def test_the_owner_sees_insert_update_and_delete(supabase, wire, database, topic, user, vsn):
    async with wire(vsn) as client:
        (binding,) = await subscribe(client, topic, supabase.token(sub=user), {"table": NOTES})
        row = await database.execute(
            f"insert into {NOTES} (owner, title, n, price, tags, details) "
            "values (%s, 'hällo', 1, 1.50, '{a,b}', '{\"k\": [1]}') returning id",
            [user],
        )
        (note,) = await row.fetchone()
        inserted = await client.event("postgres_changes")
        assert (inserted.ref, inserted.join_ref) == (None, None)
        assert inserted.payload["ids"] == [binding]
        data = inserted.payload["data"]
        assert data.pop("commit_timestamp").endswith("Z")
        assert data == {
            "schema": "public", "table": NOTES, "type": "INSERT", "errors": None,
            "columns": [
                {"name": "id", "type": "int8"}, {"name": "owner", "type": "uuid"},
                {"name": "title", "type": "text"}, {"name": "n", "type": "int4"},
                {"name": "price", "type": "numeric"}, {"name": "done", "type": "bool"},
                {"name": "tags", "type": "_text"}, {"name": "details", "type": "jsonb"},
                {"name": "created_at", "type": "timestamptz"},
            ],
            "record": {
                "id": note, "owner": user, "title": "hällo", "n": 1, "price": 1.5, "done": False,
                "tags": ["a", "b"], "details": {"k": [1]}, "created_at": "2026-01-02T03:04:05.678+00:00",
            },
        }  # fmt: skip
        await database.execute(f"update {NOTES} set done = true where id = %s", [note])
        data = (await change(client))["data"]
        assert (data["type"], data["record"]["done"], data["old_record"]) == ("UPDATE", True, {"id": note})
        await database.execute(f"delete from {NOTES} where id = %s", [note])
        data = (await change(client))["data"]
        assert (data["type"], data["old_record"], "record" in data) == ("DELETE", {"id": note}, False)


async def test_others_see_no_row_of_a_user_but_the_key_of_a_deleted_one(
    supabase, wire, database, topic, user
):
    async with wire() as stranger, wire() as anonymous, wire() as service:
        for client, token in (
            (stranger, supabase.token()),
            (anonymous, supabase.anon_key),
            (service, supabase.service_key),
        ):
            await subscribe(client, topic, token, {"table": NOTES})
        await database.execute(
            f"insert into {NOTES} (id, owner, title) overriding system value values (900001, %s, 'x')", [user]
        )
        await database.execute(f"delete from {NOTES} where id = 900001")
        assert (await change(service))["data"]["type"] in ("INSERT", "DELETE")
        for client in (stranger, anonymous):
            data = (await change(client))["data"]
            assert (data["type"], data["old_record"]) == ("DELETE", {"id": 900001})


async def test_replica_identity_full_gives_the_whole_old_row(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        await database.execute(f"insert into {PLAIN} values (1, 'a', 1)")
        await database.execute(f"update {PLAIN} set title = 'b' where id = 1")
        await database.execute(f"delete from {PLAIN} where id = 1")
        await change(client)
        updated = (await change(client))["data"]
        assert updated["old_record"] == {"id": 1, "title": "a", "n": 1}
        assert updated["record"] == {"id": 1, "title": "b", "n": 1}
        assert (await change(client))["data"]["old_record"] == {"id": 1, "title": "b", "n": 1}


FILTERS = {
    "n=eq.2": [2],
    "n=neq.2": [1, 3, 10],
    "n=lt.2": [1],
    "n=lte.2": [1, 2],
    "n=gt.2": [3, 10],
    "n=gte.3": [3, 10],
    "n=in.(1,3)": [1, 3],
    "n=not.in.(1,3)": [2, 10],
    "n=gt.1,n=lt.10": [2, 3],
    "title=like.row 1%": [1, 10],
    'title=in.(row 1,"row 2")': [1, 2],
    "title=is.null": [None],
    "title=not.is.null": [1, 2, 3, 10],
}


@pytest.mark.parametrize("condition", FILTERS)
async def test_filters_let_the_right_rows_pass(supabase, wire, database, topic, condition):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN, "filter": condition})
        await subscribe(client, f"{topic}-all", supabase.anon_key, {"table": PLAIN})
        for n in (1, 2, 3, 10):
            await database.execute(f"insert into {PLAIN} values (%s, %s, %s)", [n, f"row {n}", n])
        await database.execute(f"insert into {PLAIN} values (99, null, null)")
        seen: dict[str, list[int | None]] = {topic: [], f"{topic}-all": []}
        while len(seen[f"{topic}-all"]) < 5:
            frame = await client.event("postgres_changes")
            seen[frame.topic.removeprefix("realtime:")].append(frame.payload["data"]["record"]["n"])
        await client.heard_nothing_of("postgres_changes")
        assert seen[topic] == FILTERS[condition]


async def test_one_frame_names_all_matching_bindings_of_a_channel(supabase, wire, database, topic):
    async with wire() as client:
        every, inserts, updates, wildcard = await subscribe(
            client, topic, supabase.anon_key,
            {"table": PLAIN}, {"table": PLAIN, "event": "INSERT"}, {"table": PLAIN, "event": "UPDATE"},
            {"table": "*"},
        )  # fmt: skip
        await database.execute(f"insert into {PLAIN} values (5, 'a', 1)")
        assert sorted((await change(client))["ids"]) == sorted([every, inserts, wildcard])
        await client.heard_nothing_of("postgres_changes")
        assert updates != inserts


async def test_a_selection_keeps_the_key_and_the_selected_columns(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN, "select": ["title"]})
        await database.execute(f"insert into {PLAIN} values (6, 'a', 1)")
        data = (await change(client))["data"]
        assert data["record"] == {"id": 6, "title": "a"}
        assert [column["name"] for column in data["columns"]] == ["id", "title"]


async def test_without_the_privilege_to_select_only_an_error_arrives(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": SECRETS})
        await database.execute(f"insert into {SECRETS} values (1, 'hidden')")
        data = (await change(client))["data"]
        assert (data["record"], data["errors"]) == ({}, ["Error 401: Unauthorized"])


async def test_a_row_of_more_than_a_megabyte_loses_its_big_columns(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        await database.execute(f"insert into {PLAIN} values (7, repeat('x', 1100000), 3)")
        data = (await change(client))["data"]
        assert (data["record"], data["errors"]) == ({"id": 7, "n": 3}, ["Error 413: Payload Too Large"])


async def test_truncate_tells_nothing(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        await database.execute(f"truncate {PLAIN}")
        await database.execute(f"insert into {PLAIN} values (8, 'after', 1)")
        assert (await change(client))["data"]["type"] == "INSERT"


async def test_subscriptions_that_cannot_work_are_told_so(supabase, wire, database, topic):
    table = {"schema": "public", "table": PLAIN}
    cases = [
        (
            {"event": "*", "schema": "public", "table": "nosuch"},
            "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the "
            "given connect parameters: [event: *, schema: public, table: nosuch, filters: [], select: nil]",
        ),
        ({**table, "filter": "n=zz.1"}, 'Error parsing `filter` params: ["zz", "1"]'),
        ({**table, "filter": "undefined"}, 'Error parsing `filter` params: ["undefined"]'),
        ({"event": "*"}, "No subscription params provided. Please provide at least a `schema` or `table`"),
    ]
    async with wire() as client:
        for binding, message in cases:
            found = await refused(client, topic, supabase.anon_key, binding)
            assert found.replace('", "', '","').startswith(message.replace('", "', '","'))
        found = await refused(client, topic, supabase.anon_key, {**table, "filter": "nope=eq.1"})
        assert found.endswith("Exception: ERROR P0001 (raise_exception) invalid column for filter nope")
        found = await refused(client, topic, supabase.anon_key, {**table, "filter": "n=eq.one"})
        assert "invalid input syntax for type integer" in found


async def test_a_refresh_subscribes_again_in_the_new_name(supabase, wire, database, topic, user):
    async with wire() as client:
        await subscribe(client, topic, supabase.token(), {"table": NOTES})
        payload = {"access_token": supabase.token(sub=user)}
        await client.send(f"realtime:{topic}", "access_token", payload, "1")
        assert (await client.system())["message"] == "Subscribed to PostgreSQL"
        await database.execute(f"insert into {NOTES} (owner, title) values (%s, 'mine')", [user])
        assert (await change(client))["data"]["record"]["title"] == "mine"


async def test_a_join_without_config_subscribes_to_the_schema_in_its_topic(supabase, wire, database):
    full = f"realtime:public:{PLAIN}"
    async with wire() as client:
        ref = await client.send(full, "phx_join", {}, "1")
        assert (await client.reply(ref)).payload["status"] == "ok"
        assert (await client.system())["message"] == "Subscribed to PostgreSQL"
        await database.execute(f"insert into {PLAIN} values (9, 'a', 1)")
        assert (await client.event("INSERT")).payload["record"] == {"id": 9, "title": "a", "n": 1}


async def test_changes_arrive_in_the_order_of_their_commits(supabase, wire, database, topic):
    async with wire() as client:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        for n in range(200):
            await database.execute(f"insert into {PLAIN} values (%s, 'a', 1)", [1000 + n])
        assert [(await change(client))["data"]["record"]["id"] for _ in range(200)] == list(range(1000, 1200))


async def test_after_leaving_nothing_arrives(supabase, wire, database, topic):
    async with wire() as client, wire() as staying:
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        await subscribe(staying, topic, supabase.anon_key, {"table": PLAIN})
        await client.send(f"realtime:{topic}", "phx_leave", {}, "1")
        await client.event("phx_close")
        await database.execute(f"insert into {PLAIN} values (10, 'a', 1)")
        await change(staying)
        await client.heard_nothing_of("postgres_changes")


async def test_a_deleted_row_under_policies_gives_its_key_only_even_with_replica_identity_full(
    supabase, wire, database, topic, user
):
    await database.execute(f"alter table {NOTES} replica identity full")
    try:
        async with wire() as client:
            await subscribe(client, topic, supabase.token(), {"table": NOTES})
            row = await database.execute(
                f"insert into {NOTES} (owner, title) values (%s, 'secret') returning id", [user]
            )
            (note,) = await row.fetchone()
            await database.execute(f"delete from {NOTES} where id = %s", [note])
            assert (await change(client))["data"]["old_record"] == {"id": note}
    finally:
        await database.execute(f"alter table {NOTES} replica identity default")


async def test_what_was_committed_before_subscribing_does_not_arrive(supabase, wire, database, topic):
    async with wire() as client:
        await client.joined(f"{topic}-first")
        await database.execute(f"insert into {PLAIN} values (20, 'before', 1)")
        await subscribe(client, topic, supabase.anon_key, {"table": PLAIN})
        await database.execute(f"insert into {PLAIN} values (21, 'after', 1)")
        assert (await change(client))["data"]["record"]["title"] == "after"
