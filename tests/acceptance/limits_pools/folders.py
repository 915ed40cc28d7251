"""kombu's transport over a folder, made safe: its own readers meet files that are not written yet."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem

FOLDER = "folder"  # the scheme of its URLs


class Channel(filesystem.Channel):  # type: ignore[misc]
    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        folder = Path(self.data_folder_out)
        written = folder / f"{uuid.uuid4()}.part"
        written.write_text(json.dumps(payload))
        os.rename(written, folder / f"{time.monotonic_ns():020}_{uuid.uuid4()}.{queue}.msg")


class Transport(filesystem.Transport):  # type: ignore[misc]
    Channel = Channel


TRANSPORT_ALIASES[FOLDER] = f"{__name__}:Transport"
