"""The whole system as real processes, faults from a seeded schedule, and three ledgers to compare."""
