"""Broadcasts from SQL, and their replay."""

from __future__ import annotations

import json
import time
import uuid

import pytest

from tests.conformance.wire import V1, V2

VERSIONS = pytest.mark.parametrize("vsn", [V1, V2])


@pytest.fixture
def hall(schema) -> str:
    return f"hall-{uuid.uuid4().hex[:6]}"


async def send(database, topic, event="dbev", payload=None, private=True):
    body = json.dumps({"hello": "db"} if payload is None else payload)
    await database.execute("select realtime.send(%s::jsonb, %s, %s, %s)", [body, event, topic, private])


async def joined_and_followed(client, topic, token=None, **broadcast):
    """Joined, and the server follows the database."""
    private = token is not None
    ref = await client.joined(
        topic, token, private=private, broadcast={"replication_ready": True, **broadcast}
    )
    system = await client.first(
        lambda f: f.event == "system" and f.payload["message"].startswith("Replication"), "replication"
    )
    assert system.payload == {
        "message": "Replication connection established",
        "status": "ok",
        "extension": "system",
        "channel": topic,
    }
    return ref


@VERSIONS
async def test_a_message_sent_from_sql_reaches_the_private_channel(supabase, wire, database, hall, vsn):
    async with wire(vsn) as client:
        await joined_and_followed(client, hall, supabase.token())
        await send(database, hall)
        received = await client.event("broadcast")
        message_id = received.payload["payload"]["id"]
        assert uuid.UUID(message_id)
        assert received.payload["payload"] == {"hello": "db", "id": message_id}
        assert (received.payload["event"], received.payload["meta"]) == ("dbev", {"id": message_id})
        assert received.is_binary == (vsn == V2)


async def test_private_false_sends_to_the_public_channel(supabase, wire, database, hall):
    async with wire() as public, wire() as private:
        await joined_and_followed(public, hall)
        await joined_and_followed(private, hall, supabase.token())
        await send(database, hall, "for-public", private=False)
        await send(database, hall, "for-private")
        assert (await public.event("broadcast")).payload["event"] == "for-public"
        assert (await private.event("broadcast")).payload["event"] == "for-private"


async def test_an_id_of_the_payload_is_kept(supabase, wire, database, hall):
    async with wire() as client:
        await joined_and_followed(client, hall, supabase.token())
        await send(database, hall, payload={"id": "mine"})
        assert (await client.event("broadcast")).payload["payload"] == {"id": "mine"}


async def test_a_send_that_fails_is_a_warning_and_a_rolled_back_one_is_never_heard(
    supabase, wire, database, hall
):
    async with wire() as client:
        await joined_and_followed(client, hall, supabase.token())
        warnings = []
        database.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        await send(database, hall, payload="no object")
        assert len(warnings) == 1
        async with database.transaction(force_rollback=True):
            await send(database, hall, "rolled back")
        await send(database, hall, "kept")
        assert (await client.event("broadcast")).payload["event"] == "kept"


async def test_broadcast_changes_tells_of_a_row(supabase, wire, database, hall):
    await database.execute(
        f"""
        drop trigger if exists tell on public.conformance_plain;
        create or replace function public.conformance_tell() returns trigger language plpgsql as $$
        begin
            perform realtime.broadcast_changes(
                '{hall}', tg_op, tg_op, tg_table_name, tg_table_schema, new, old
            );
            return null;
        end $$;
        create trigger tell after insert or update or delete on public.conformance_plain
            for each row execute function public.conformance_tell();
        """
    )
    try:
        async with wire() as client:
            await joined_and_followed(client, hall, supabase.token())
            await database.execute("insert into public.conformance_plain values (77, 'a', 1)")
            await database.execute("update public.conformance_plain set n = 2 where id = 77")
            await database.execute("delete from public.conformance_plain where id = 77")
            one, two = {"id": 77, "title": "a", "n": 1}, {"id": 77, "title": "a", "n": 2}
            for operation, record, old_record in (
                ("INSERT", one, None),
                ("UPDATE", two, one),
                ("DELETE", None, two),
            ):
                payload = (await client.event("broadcast")).payload
                assert payload["event"] == operation
                assert uuid.UUID(payload["payload"].pop("id"))
                assert payload["payload"] == {
                    "schema": "public", "table": "conformance_plain", "operation": operation,
                    "record": record, "old_record": old_record,
                }  # fmt: skip
    finally:
        await database.execute(
            "drop trigger tell on public.conformance_plain; drop function conformance_tell"
        )


async def test_binary_from_sql_reaches_version_2_only(supabase, wire, database, hall):
    async with wire(V2) as new, wire(V1) as old:
        await joined_and_followed(new, hall, supabase.token())
        await joined_and_followed(old, hall, supabase.token())
        await database.execute("select realtime.send_binary('\\x00ff'::bytea, 'raw', %s)", [hall])
        assert (await new.event("broadcast")).payload["payload"] == b"\x00\xff"
        await old.heard_nothing_of("broadcast")


@VERSIONS
async def test_replay_sends_what_the_database_sent_before(supabase, wire, database, hall, vsn):
    since = int((time.time() - 60) * 1000)
    for n in range(3):
        await send(database, hall, f"event-{n}", {"n": n})
    async with wire(vsn) as client:
        replay = {"since": since, "limit": 2}
        await client.joined(hall, supabase.token(), private=True, broadcast={"replay": replay})
        first, second = await client.event("broadcast"), await client.event("broadcast")
        assert [frame.payload["event"] for frame in (first, second)] == ["event-1", "event-2"]
        assert first.payload["meta"] == {"replayed": True, "id": first.payload["payload"]["id"]}
        await client.heard_nothing_of("broadcast")


async def test_replay_is_for_private_channels_and_needs_a_time(supabase, wire, hall):
    async with wire() as client:
        _, payload = await client.join(hall, broadcast={"replay": {"since": 1}})
        assert payload["response"] == {
            "reason": "UnableToReplayMessages: Replay is not allowed for public channels"
        }
        _, payload = await client.join(hall, supabase.token(), private=True, broadcast={"replay": {}})
        assert payload["response"] == {"reason": "UnableToReplayMessages: Replay params are not valid"}
