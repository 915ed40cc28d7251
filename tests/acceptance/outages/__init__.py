"""Supabase away in every way: what goes on meanwhile, and what is true afterwards."""

LINES = 5
"""Log lines that each run of `chatty` writes."""
