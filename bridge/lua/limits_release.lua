-- Frees the slots of an execution that has ended, and lets the next ones go.
-- requires limits_clock, limits_quick_release, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: holder, 3: lane, 4: least time in ms for which a second delivery is recognised
-- returns how many granted runs wait to be published
local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local member = string.match(holder, '^(.*)#%d+$')
local run = run_key(member)

redis.call('HDEL', P .. 'held:' .. worker, holder)
give_back(holder, lane)
local known = redis.call('HMGET', run, 'holder', 'since')
if known[1] == holder then
  local took = math.max(0, now - tonumber(known[2] or now))
  redis.call('DEL', run)
  redis.call('HSET', run, 'state', 'done')
  redis.call('PEXPIRE', run, math.min(tonumber(ARGV[4]) + took, 24 * 3600 * 1000))
end
wake(slots_of(lane), now)
return outgoing()
