"""The wire format: text frames of protocol versions 1 and 2, and version 2's binary broadcasts.

Pure functions from bytes to messages and back. Formats: https://supabase.com/docs/guides/realtime/protocol
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

BROADCAST_PUSH = 3
BROADCAST = 4
_JSON_PAYLOAD = 1


class Version(Enum):
    """The protocol version that a socket asked for with `vsn`."""

    V1 = "1.0.0"
    V2 = "2.0.0"

    @classmethod
    def asked(cls, vsn: str | None) -> Version | None:
        """The version for a `vsn` query value; none for a version that nobody speaks."""
        if vsn is None or vsn.startswith("1.0."):
            return cls.V1
        return cls.V2 if vsn.startswith("2.0.") else None


@dataclass(frozen=True, slots=True)
class BinaryBroadcast:
    """A broadcast whose payload stays as the bytes the sender wrote: JSON text or anything."""

    event: str
    payload: bytes
    is_json: bool
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """What a client sent."""

    topic: str
    event: str
    payload: Any
    ref: str | None
    join_ref: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """Encoded bytes, ready for the socket."""

    data: bytes
    is_text: bool = True


def decode(version: Version, data: str | bytes) -> Message | None:
    """The message in a frame; none when it is malformed, which the server ignores in silence."""
    if isinstance(data, bytes):
        return _decode_binary(data) if version is Version.V2 else None
    try:
        decoded = load(data)
    except (ValueError, RecursionError):
        return None
    return _message(decoded, version)


def _message(decoded: Any, version: Version) -> Message | None:
    if version is Version.V2:
        if not isinstance(decoded, list) or len(decoded) < 5:
            return None
        join_ref, ref, topic, event, payload = decoded[:5]
    else:
        if not isinstance(decoded, dict) or not {"topic", "event", "payload", "ref"} <= decoded.keys():
            return None
        join_ref, ref = decoded.get("join_ref"), decoded["ref"]
        topic, event, payload = decoded["topic"], decoded["event"], decoded["payload"]
    if not isinstance(topic, str) or not isinstance(event, str):
        return None
    return Message(topic, event, payload, ref, join_ref)


def _decode_binary(data: bytes) -> Message | None:
    """Kind 3: seven bytes of kind, lengths and encoding, then the fields, then the payload."""
    if len(data) < 7 or data[0] != BROADCAST_PUSH:
        return None
    lengths, is_json = data[1:6], data[6] != 0
    fields, start = [], 7
    for length in lengths:
        fields.append(data[start : start + length])
        start += length
    if start > len(data):
        return None
    try:
        join_ref, ref, topic, event, metadata = (field.decode() for field in fields)
        decoded_metadata = load(metadata) if metadata else None
    except ValueError:
        return None
    broadcast = BinaryBroadcast(event, data[start:], is_json, decoded_metadata)
    return Message(topic, "broadcast", broadcast, ref or None, join_ref or None)


def encode(
    version: Version, topic: str, event: str, payload: Any, ref: Any = None, join_ref: Any = None
) -> Frame:
    """A text frame. Version 1 has no place for the join_ref."""
    if version is Version.V1:
        body: Any = {"ref": ref, "event": event, "topic": topic, "payload": payload}
    else:
        body = [join_ref, ref, topic, event, payload]
    return Frame(dump(body))


def encode_reply(version: Version, to: Message, status: str, response: Any) -> Frame:
    """The answer to one message."""
    payload = {"status": status, "response": response}
    return encode(version, to.topic, "phx_reply", payload, to.ref, to.join_ref)


def encode_broadcast(version: Version, topic: str, broadcast: BinaryBroadcast | Any) -> Frame | None:
    """A broadcast for a member; none where the member's version cannot carry it.

    A text broadcast stays text. A binary one stays binary on version 2; version 1 gets its JSON as text,
    and nothing when the bytes are no JSON.
    """
    if not isinstance(broadcast, BinaryBroadcast):
        return encode(version, topic, "broadcast", broadcast)
    if version is Version.V2:
        return _encode_binary(topic, broadcast)
    if not broadcast.is_json:
        return None
    try:
        payload = load(broadcast.payload)
    except (ValueError, RecursionError):
        return None
    envelope = {"event": broadcast.event, "payload": payload, "type": "broadcast"}
    if broadcast.metadata is not None:
        envelope["meta"] = broadcast.metadata
    return encode(version, topic, "broadcast", envelope)


def _encode_binary(topic: str, broadcast: BinaryBroadcast) -> Frame | None:
    metadata = dump(broadcast.metadata) if broadcast.metadata is not None else b""
    fields = [topic.encode(), broadcast.event.encode(), metadata]
    if any(len(field) > 255 for field in fields):
        return None
    head = bytes([BROADCAST, *(len(field) for field in fields), _JSON_PAYLOAD if broadcast.is_json else 0])
    return Frame(b"".join([head, *fields, broadcast.payload]), is_text=False)


def load(text: str | bytes) -> Any:
    """JSON and nothing more: no NaN, no number too large for a float; raises ValueError or RecursionError."""
    return json.loads(text, parse_constant=_no_number, parse_float=_finite)


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def dump(value: Any) -> bytes:
    """Compact JSON as UTF-8; lone surrogates, which JSON text may smuggle in, go out escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()
