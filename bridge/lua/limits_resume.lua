-- Ends a pause and lets the next ones go.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: target
-- returns 1, or 0 when it was not paused
local target = ARGV[1]
local was_paused = redis.call('HDEL', P .. 'paused', target)
redis.call('ZREM', P .. 'due', target)
wake({ target }, now_ms())
return was_paused
