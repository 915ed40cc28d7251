-- Notes that the message of an execution goes back to its queue; its slots stay taken until they are released.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: holder
-- returns 1, or 0 when the run is another holder's by now
local holder = ARGV[1]
local run = run_key(string.match(holder, '^(.*)#%d+$'))
if redis.call('HGET', run, 'holder') ~= holder then return 0 end
redis.call('HDEL', run, 'holder', 'worker', 'message')
redis.call('HSET', run, 'state', 'lost')
redis.call('PEXPIRE', run, 7 * 24 * 3600 * 1000)
return 1
