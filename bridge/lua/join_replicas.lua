-- Tells that a replica lives, and forgets those that have not told for a while.
-- KEYS    1: sorted set of replicas by the time they last told, in milliseconds of the Redis clock
-- ARGV    1: id of the replica, 2: milliseconds after which a silent one counts as gone
-- returns how many live
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return redis.call('ZCARD', KEYS[1])
