"""The embedded stack: real Redis, Postgres and PostgREST, stand-ins for Auth and Realtime, on loopback.

>>> async with Stack() as stack:
...     print(stack.url, stack.anon_key)
>>> with Stack.running() as stack:          # the sync twin, in a child process
...     print(stack.url, stack.anon_key)
"""

from bridge.local.stack import Stack

__all__ = ["Stack"]
