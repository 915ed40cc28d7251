"""The bridge process: from the outbox to rows and broadcasts, each step safe to repeat."""
