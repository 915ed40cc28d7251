"""The stand-in's wire format, without a server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.local.realtime.frames import (
    BinaryBroadcast,
    Message,
    Version,
    decode,
    encode,
    encode_broadcast,
    encode_reply,
)

V1, V2 = Version.V1, Version.V2


@pytest.mark.parametrize(
    ("vsn", "version"),
    [(None, V1), ("1.0.0", V1), ("2.0.0", V2), ("2.0.1", V2), ("9.9.9", None), ("", None), ("2", None)],
)
def test_the_version_follows_the_query(vsn, version):
    assert Version.asked(vsn) is version


def test_both_text_forms_decode_to_the_same_message():
    expected = Message("t", "e", {"a": 1}, "2", "1")
    old = '{"topic":"t","event":"e","payload":{"a":1},"ref":"2","join_ref":"1"}'
    assert decode(V1, old) == decode(V2, '["1","2","t","e",{"a":1}]') == expected


@pytest.mark.parametrize(
    "malformed",
    [
        *("", "{", "null", "[]", "[1,2,3,4]", '["1","2",3,"e",{}]', "[" * 100_000),
        *('{"topic":"t"}', '{"topic":"t","event":"e","payload":{}}'),
        *('[null,null,"t","e",NaN]', '[null,null,"t","e",1e999]'),
        *(b"", b"\x03", b"\x03\xff\xff\xff\xff\xff\x01x", b"\x03\x00\x00\x01\x00\x00\x01\xff", b"\x07" * 30),
    ],
)
def test_malformed_frames_decode_to_nothing(malformed):
    assert decode(V1, malformed) is None
    assert decode(V2, malformed) is None


@given(st.binary(max_size=300))
def test_no_bytes_make_decoding_fail(data):
    decode(V2, data)
    decode(V2, data.decode("utf-8", "surrogateescape"))
    decode(V1, data.decode("latin-1"))


def test_a_binary_push_decodes_field_by_field():
    data = b'\x03\x01\x01\x0e\x03\x07\x0119realtime:room1cur{"m":1}{"a":1}'
    assert decode(V2, data) == Message(
        "realtime:room1", "broadcast", BinaryBroadcast("cur", b'{"a":1}', True, {"m": 1}), "9", "1"
    )
    assert decode(V1, data) is None


def test_version_1_never_carries_a_join_ref():
    frame = encode(V1, "t", "phx_close", {}, "1", "1")
    assert json.loads(frame.data) == {"topic": "t", "event": "phx_close", "payload": {}, "ref": "1"}
    assert json.loads(encode(V2, "t", "phx_close", {}, "1", "1").data) == ["1", "1", "t", "phx_close", {}]


def test_a_reply_names_what_it_answers():
    asked = Message("t", "e", {}, "2", "1")
    assert json.loads(encode_reply(V2, asked, "error", "payload_size_exceeded").data) == [
        "1", "2", "t", "phx_reply", {"status": "error", "response": "payload_size_exceeded"}
    ]  # fmt: skip


def test_a_binary_broadcast_stays_binary_on_version_2():
    broadcast = BinaryBroadcast("ev1", b'{"a": 1}', True, {"id": "03e8"})
    frame = encode_broadcast(V2, "realtime:room", broadcast)
    assert frame is not None
    assert not frame.is_text
    assert frame.data == b'\x04\x0d\x03\x0d\x01realtime:roomev1{"id":"03e8"}{"a": 1}'


def test_version_1_gets_json_as_text_and_bytes_not_at_all():
    frame = encode_broadcast(V1, "t", BinaryBroadcast("e", b'{"a": 1}', True, {"id": "x"}))
    assert frame is not None
    assert json.loads(frame.data)["payload"] == {
        "event": "e", "payload": {"a": 1}, "type": "broadcast", "meta": {"id": "x"}
    }  # fmt: skip
    assert encode_broadcast(V1, "t", BinaryBroadcast("e", b"\x00", False)) is None
    assert encode_broadcast(V1, "t", BinaryBroadcast("e", b"{broken", True)) is None


def test_a_name_too_long_for_its_length_byte_is_not_sent():
    assert encode_broadcast(V2, "t" * 256, BinaryBroadcast("e", b"", False)) is None


def test_lone_surrogates_go_out_escaped():
    message = decode(V2, '[null,null,"t","e",{"x":"\\ud800"}]')
    assert message is not None
    assert b"\\ud800" in encode(V1, "t", "e", message.payload).data
