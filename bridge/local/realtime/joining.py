"""What a client asks for when it joins a channel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


class BadJoin(Exception):
    """The join payload has a shape that the server stumbles over."""


@dataclass(frozen=True)
class JoinConfig:
    """The `config` of a phx_join payload, with the server's defaults."""

    private: bool = False
    ack: bool = False
    own: bool = False
    replication_ready: bool = False
    replay: Any = None
    presence_enabled: bool = False
    presence_key: str = ""
    postgres_changes: list[dict[str, Any]] = field(default_factory=list)
    is_legacy: bool = False
    access_token: str | None = None


def parse_join(topic: str, payload: Any) -> JoinConfig:
    """Read a join payload; a value of a wrong type counts as absent unless it breaks the whole shape.

    Raises BadJoin with the reason that the server gives.
    """
    if not isinstance(payload, dict):
        raise BadJoin("no function clause matching in Access.get/3")
    token = _token(payload)
    if "config" not in payload:
        return JoinConfig(is_legacy=True, postgres_changes=[legacy_binding(topic)], access_token=token)
    config = payload["config"] if payload["config"] is not None else {}
    broadcast = _section(config, "broadcast")
    presence = _section(config, "presence")
    return JoinConfig(
        private=flexible_bool(config.get("private")),
        ack=flexible_bool(broadcast.get("ack")),
        own=flexible_bool(broadcast.get("self")),
        replication_ready=bool(broadcast.get("replication_ready")),
        replay=broadcast.get("replay"),
        presence_enabled=flexible_bool(presence.get("enabled")),
        presence_key=_text(presence.get("key")),
        postgres_changes=_bindings(config.get("postgres_changes")),
        access_token=token,
    )


def flexible_bool(value: Any) -> bool:
    """A boolean, also written as text in any case."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def legacy_binding(topic: str) -> dict[str, Any]:
    """The postgres_changes binding that a join without config means: `schema:table:filter` in the topic.

    >>> legacy_binding("public:todos:id=eq.1")
    {'schema': 'public', 'table': 'todos', 'filter': 'id=eq.1'}
    """
    return dict(zip(("schema", "table", "filter"), topic.split(":", 2), strict=False))


def _section(config: Any, name: str) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise BadJoin("no function clause matching in Access.get/3")
    section = config.get(name)
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise BadJoin("no function clause matching in Access.get/3")
    return section


def _bindings(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        return []
    bindings = [binding for binding in value if binding is not None]
    if not all(isinstance(binding, dict) for binding in bindings):
        raise BadJoin("expected a map")
    return bindings


def _token(payload: dict[str, Any]) -> str | None:
    for name in ("user_token", "access_token"):
        token = payload.get(name)
        if isinstance(token, str) and token:
            return token
    return None


def _text(value: Any) -> str:
    if value is None or isinstance(value, (dict, list)):
        return ""
    return value if isinstance(value, str) else str(value)
