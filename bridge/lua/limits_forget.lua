-- Drops what is known of a run that was ended without being started.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: member, 2: time in ms for which a second delivery is recognised
-- returns how many granted runs wait to be published
local member = ARGV[1]
local now, run = now_ms(), run_key(member)
local known = redis.call('HMGET', run, 'state', 'lane', 'holder', 'meta')
local state, lane = known[1], known[2]
if not state or state == 'held' or state == 'done' then return outgoing() end
redis.call('ZREM', P .. 'ending', member)
redis.call('ZREM', P .. 'grants', member)
redis.call('LREM', P .. 'outgoing', 0, member)
if state == 'waiting' then leave_line(member, lane, now) end
if state == 'granted' then give_back(known[3], lane) end
redis.call('DEL', run)
redis.call('HSET', run, 'state', 'done', 'meta', known[4] or '')
redis.call('PEXPIRE', run, ARGV[2])
if lane then wake(split(lane), now) end
return outgoing()
