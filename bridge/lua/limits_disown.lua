-- Notes that the message of an execution goes back to its queue; its slots stay taken until they are released.
-- A second copy that was kept here lines up: the broker may have nothing left to give back.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: holder, 2: '1' when the process that executed it died
-- returns 1, or 0 when the run is another holder's by now
local holder = ARGV[1]
local member = string.match(holder, '^(.*)#%d+$')
local run, now = run_key(member), now_ms()
local known = redis.call('HMGET', run, 'holder', 'lane')
if known[1] ~= holder then return 0 end
set_back(member, ARGV[2] == '1' and 'died' or 'lost', now)
wake(split(known[2]), now)
return 1
