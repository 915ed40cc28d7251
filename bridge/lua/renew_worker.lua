-- Renews the lease of a worker, which takes one if it has none.
-- KEYS    1: sorted set of workers by the end of their lease, in milliseconds of the Redis clock
-- ARGV    1: id of the worker, 2: length of the lease in milliseconds
-- returns 1 when the worker was known, 0 when it is new: at its start, or because Redis lost or buried it
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return 1 - redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
