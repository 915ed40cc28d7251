"""A minimal Auth: enough of GoTrue for anonymous and password sign-in with the official clients.

Like the Supabase CLI's own it confirms addresses by itself and sends no mail; unlike it, anonymous sign-in
is on.
"""

from bridge.local.auth.service import Auth

__all__ = ["Auth"]
