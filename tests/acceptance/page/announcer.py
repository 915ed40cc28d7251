"""Writes a run's rows and broadcasts them as the bridge does, over the REST API with the service key."""

from __future__ import annotations

import time
import uuid
from typing import Any

import httpx

from bridge.local.running import RunningStack

Snapshot = dict[str, Any]


class Announcer:
    """The runs of one user; `change` writes a row and returns the snapshot, `tell` broadcasts one."""

    def __init__(self, stack: RunningStack) -> None:
        self._headers = {"apikey": stack.service_key, "Authorization": f"Bearer {stack.service_key}"}
        self._url = stack.url
        self._version = 0

    def begin(self, user_id: str, **fields: Any) -> str:
        """A queued run, announced."""
        run_id = str(uuid.uuid4())
        named = {"user_id": user_id, "root_id": run_id, "task": "import_socials"}
        named |= {"channel": f"import-socials-{user_id}", "status": "queued"}
        self.announce(run_id, **named, **fields)
        return run_id

    def announce(self, run_id: str, lines: tuple[tuple[str, str], ...] = (), **fields: Any) -> None:
        """Change the row and broadcast what came of it, the parents' snapshots too."""
        result = self.write(run_id, lines, **fields)
        for line in result["logs"]:
            told = {name: result["snapshot"][name] for name in ("run_id", "task", "status", "seq")}
            self.tell(result["channel"], told | line, event="log")
        for each in (result, *result["parents"]):
            self.tell(each["channel"], each["snapshot"])

    def write(self, run_id: str, lines: tuple[tuple[str, str], ...] = (), **fields: Any) -> dict[str, Any]:
        """Change the row only."""
        self._version += 1
        logs = [
            {"v": self._version, "level": level, "message": text, "at": time.time()} for level, text in lines
        ]
        element = {"id": run_id, "attempt": fields.pop("attempt", 1), "version": self._version}
        element |= {"at": time.time(), "set": fields, "logs": logs}
        results: list[dict[str, Any]] = self.rest("rpc/mirror_runs", {"batch": [element]})
        assert results[0]["outcome"] == "applied", results
        return results[0]

    def tell(self, topic: str, snapshot: Snapshot, event: str = "progress") -> None:
        """Broadcast only."""
        message = {"topic": topic, "event": event, "payload": snapshot, "private": True}
        self._post("realtime/v1/api/broadcast", {"messages": [message]})

    def rest(self, path: str, body: Any) -> Any:
        """POST to the REST API as the service role."""
        return self._post(f"rest/v1/{path}", body).json()

    def read(self, path: str) -> list[dict[str, Any]]:
        """GET rows as the service role."""
        answer = httpx.get(f"{self._url}/rest/v1/{path}", headers=self._headers, timeout=30)
        assert answer.is_success, answer.text
        rows: list[dict[str, Any]] = answer.json()
        return rows

    def _post(self, path: str, body: Any) -> httpx.Response:
        headers = {**self._headers, "Prefer": "return=representation"}
        answer = httpx.post(f"{self._url}/{path}", json=body, headers=headers, timeout=30)
        assert answer.is_success, answer.text
        return answer
