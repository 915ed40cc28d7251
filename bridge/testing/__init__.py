"""In-memory twins of the outside systems, for tests of applications and of the bridge itself."""

from bridge.testing.broadcast import MemoryBroadcast
from bridge.testing.outbox import MemoryOutbox
from bridge.testing.rows import MemoryRows

__all__ = ["MemoryBroadcast", "MemoryOutbox", "MemoryRows"]
