-- Lets runs through gates whose limit may have changed, or that were overlooked.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    the gates
-- returns how many granted runs wait to be published
wake(ARGV, now_ms())
return outgoing()
