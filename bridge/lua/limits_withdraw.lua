-- Takes a waiting run out of its line, to be ended by the caller, who tells with limits_forget when that is done.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: task id, 2: why
-- returns {member, message}, or nothing when the run does not wait
local member = redis.call('HGET', P .. 'parked', ARGV[1])
if not member then return false end
local now, run = now_ms(), run_key(member)
local known = redis.call('HMGET', run, 'state', 'lane', 'message')
if known[1] ~= 'waiting' then return false end
redis.call('HSET', run, 'state', 'ending', 'why', ARGV[2])
leave_line(member, known[2], now)
redis.call('ZADD', P .. 'ending', now + 30000, member)
wake(split(known[2]), now)
return { member, known[3] }
