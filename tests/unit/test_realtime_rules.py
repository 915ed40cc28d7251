"""The stand-in's limits, batches, join payloads, presences, tokens and values, without a server."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from bridge.local.realtime.batch import BadBatch, parse_batch
from bridge.local.realtime.joining import BadJoin, parse_join
from bridge.local.realtime.limits import CallWindow, RollingRate, TenantLimits
from bridge.local.realtime.presence import Roster
from bridge.local.realtime.tokens import TokenReader, TokenRefused
from bridge.local.realtime.values import to_json

SECRET = "a secret that has at least thirty-two characters"


def test_a_rate_is_the_average_of_complete_seconds():
    rate = RollingRate()
    rate.add(100.0, 30)
    assert rate.average(100.9) == 0
    assert rate.average(101.0) == 30
    rate.add(101.5, 10)
    assert rate.average(102.0) == 20
    assert rate.average(104.0) == 10


def test_a_rate_forgets_what_is_older_than_a_minute():
    rate = RollingRate()
    rate.add(0, 600)
    assert rate.average(60) == 10
    assert rate.average(61) == 0
    rate.add(61, 5)
    assert rate.average(200) == 0


def test_calls_are_counted_from_the_first_of_a_window():
    calls = CallWindow(2, timedelta(seconds=30))
    assert [calls.take(now) for now in (0, 10, 20, 30.5, 31)] == [True, True, False, True, True]


def test_the_payload_limit_leaves_room_for_the_envelope():
    assert TenantLimits(payload_kb=3_000).payload_bytes == 3_000_500


def test_booleans_of_a_join_may_be_text_and_other_types_count_as_absent():
    config = {
        "private": "TRUE",
        "broadcast": {"ack": "true", "self": 1},
        "presence": {"key": 7, "enabled": True},
    }
    join = parse_join("room", {"config": config, "user_token": "u", "access_token": "a"})
    assert (join.private, join.ack, join.own, join.presence_key) == (True, True, False, "7")
    assert join.access_token == "u"


def test_a_join_without_config_is_a_subscription_of_old():
    join = parse_join("public:todos:id=eq.1", {})
    assert join.is_legacy
    assert join.postgres_changes == [{"schema": "public", "table": "todos", "filter": "id=eq.1"}]


@pytest.mark.parametrize(
    "payload",
    ["x", None, {"config": 1}, {"config": {"broadcast": True}}, {"config": {"postgres_changes": ["x"]}}],
)
def test_a_join_of_a_wrong_shape_is_refused(payload):
    with pytest.raises(BadJoin):
        parse_join("room", payload)


def test_the_size_of_a_payload_is_judged_message_by_message():
    small, large = ({"topic": "t", "event": "e", "payload": {"x": "y" * size}} for size in (10, 200))
    with pytest.raises(BadBatch) as error:
        parse_batch({"messages": [small, large]}, 300, 100)
    assert error.value.errors == {"messages": [{}, {"payload": ["Payload size exceeds tenant limit"]}]}
    assert len(parse_batch({"messages": [small, small]}, 300, 100)) == 2


def test_members_may_share_a_key_and_leave_one_by_one():
    roster = Roster()
    roster.track("phone", "alice", {"on": "phone"})
    roster.track("laptop", "alice", {"on": "laptop"})
    assert [meta["on"] for meta in roster.state()["alice"]["metas"]] == ["phone", "laptop"]
    gone = roster.untrack("phone")
    assert gone is not None
    assert [meta["on"] for meta in gone.leaves["alice"]["metas"]] == ["phone"]
    assert roster.untrack("phone") is None
    assert roster


def test_a_token_is_read_once_and_its_expiry_always():
    token = jwt.encode({"role": "authenticated", "exp": 4102444800, "sub": "u"}, SECRET)
    reader = TokenReader(SECRET)
    assert reader.read(token) is reader.read(f" {token}".strip())
    assert reader.read(token).sub == "u"


@pytest.mark.parametrize(
    ("claims", "secret", "join"),
    [
        (
            {"role": "anon", "exp": 4102444800},
            SECRET[::-1],
            "JwtSignatureError: Failed to validate JWT signature",
        ),
        ({"exp": 4102444800}, SECRET, "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
        ({"role": "anon"}, SECRET, "InvalidJWTToken: Fields `role` and `exp` are required in JWT"),
    ],
)
def test_a_refused_token_has_words_for_each_place(claims, secret, join):
    with pytest.raises(TokenRefused) as refusal:
        TokenReader(SECRET).read(jwt.encode(claims, secret))
    assert refusal.value.join == join


def test_an_unsigned_token_is_refused():
    unsigned = jwt.encode({"role": "service_role", "exp": 4102444800}, None, algorithm="none")
    with pytest.raises(TokenRefused):
        TokenReader(SECRET).read(unsigned)


@pytest.mark.parametrize(
    ("text", "type_name", "value"),
    [
        ("12", "int8", 12),
        ("1.50", "numeric", 1.5),
        ("12", "numeric", 12),
        ("NaN", "float8", "NaN"),
        ("t", "bool", True),
        ('{"a": [1]}', "jsonb", {"a": [1]}),
        ("2026-11-20 17:15:11.9+00", "timestamptz", "2026-11-20T17:15:11.9+00:00"),
        ("2026-11-20 17:15:11", "timestamp", "2026-11-20T17:15:11"),
        ("infinity", "timestamptz", "infinity"),
        ("2026-11-20", "date", "2026-11-20"),
        ("\\x00ff", "bytea", "\\x00ff"),
        (None, "int4", None),
    ],
)
def test_values_become_the_json_that_postgres_writes(text, type_name, value):
    assert to_json(text, type_name) == value
