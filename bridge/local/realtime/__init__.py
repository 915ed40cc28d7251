"""A stand-in for Supabase Realtime: the official clients' protocol over the tenant's own Postgres.

Pure: frames, joining, tokens, limits, presence, batch, bindings, filters, pgoutput, values, records.
The socket: handshake, socket, admission, channel, fanout. HTTP: rest.
Postgres: database, authorization, replay, catalog, subscribing, changes, audience,
visibility, replication.
`tenant` is what they share, `server` puts them together.
"""

from __future__ import annotations

from .limits import TenantLimits
from .server import Realtime

__all__ = ["Realtime", "TenantLimits"]
