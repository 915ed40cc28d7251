"""All that Redis holds, and what of it the plain model knows as well."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from redis import Redis

from tests.integration.limits.commands import member_of
from tests.integration.limits.model import Model
from tests.integration.limits.virtual import PREFIX

_DUMP = """
local all = {}
for _, key in ipairs(redis.call('KEYS', '*')) do
  local kind, data = redis.call('TYPE', key).ok, nil
  if kind == 'hash' then data = redis.call('HGETALL', key)
  elseif kind == 'zset' then data = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
  elseif kind == 'list' then data = redis.call('LRANGE', key, 0, -1)
  elseif kind == 'set' then data = redis.call('SMEMBERS', key)
  else data = redis.call('GET', key) end
  all[#all + 1] = { key, kind, redis.call('PTTL', key), data }
end
return cjson.encode(all)
"""


class Dump:
    """One reading of everything; hashes as dicts, sorted sets as dicts in their order."""

    def __init__(self, raw: bytes) -> None:
        self.ttl: dict[str, int] = {}
        self._data: dict[str, Any] = {}
        for key, kind, ttl, data in json.loads(raw):
            self.ttl[key] = ttl
            if kind == "hash":
                data = dict(zip(data[::2], data[1::2], strict=True))
            elif kind == "zset":
                data = dict(zip(data[::2], map(float, data[1::2]), strict=True))
            self._data[key] = data

    def get(self, name: str, default: Any = None) -> Any:
        """What stands at a key of the limits."""
        return self._data.get(f"{PREFIX}:limits:{name}", {} if default is None else default)

    def plain(self, key: str) -> Any:
        return self._data.get(key, {})

    def all(self, start: str) -> dict[str, Any]:
        """What stands at the keys that start so, by the rest of their names."""
        whole = f"{PREFIX}:limits:{start}"
        return {key[len(whole) :]: data for key, data in self._data.items() if key.startswith(whole)}

    def view(self) -> dict[str, Any]:
        """What the plain model tells as well, in the same words."""
        return {
            "runs": {member: run["state"] for member, run in self.all("run:").items()},
            "messages": {m: run["message"] for m, run in self.all("run:").items() if run.get("message")},
            "lines": {lane: list(line) for lane, line in self.all("line:").items()},
            "at": self.get("at"),
            "slots": {gate: _members(holders) for gate, holders in self.all("slots:").items()},
            "held": {worker: _members(holders) for worker, holders in self.all("held:").items()},
            "workers": self.get("workers"),
            "grants": self.get("grants"),
            "ending": self.get("ending"),
            "outgoing": self.get("outgoing", []),
            "parked": self.get("parked"),
            "paused": {target: float(till) for target, till in self.get("paused").items()},
        }


def dumper(redis: Redis) -> Callable[[], Dump]:
    script = redis.register_script(_DUMP)
    return lambda: Dump(script())


def view_of(model: Model) -> dict[str, Any]:
    """What the plain model knows."""
    return {
        "runs": {member: run.state for member, run in model.runs.items()},
        "messages": {member: run.message for member, run in model.runs.items() if run.message},
        "lines": model.lines,
        "at": model.at,
        "slots": {gate: _members(holders) for gate, holders in model.slots.items() if holders},
        "held": {worker: _members(holders) for worker, holders in model.held.items() if holders},
        "workers": model.workers,
        "grants": model.grants,
        "ending": model.ending,
        "outgoing": model.outgoing,
        "parked": model.parked,
        "paused": model.paused,
    }


def _members(holders: dict[str, Any]) -> list[str]:
    return sorted(map(member_of, holders))
