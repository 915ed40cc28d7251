-- Frees the slots of an execution that has ended, and lets the next ones go.
-- requires limits_clock, limits_quick_release, limits_gates, limits_lanes, limits_ends
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: holder, 3: lane, 4: least time in ms for which a second delivery is recognised,
--         5: '1' when it is over, '' when its message may come back on purpose,
--         and where its message is acked as well 6-8: the broker's hash and index of unacked messages, the tag there
-- returns how many granted runs wait to be published
local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
if ARGV[8] then
  redis.call('HDEL', ARGV[6], ARGV[8])
  redis.call('ZREM', ARGV[7], ARGV[8])
end
end_execution(worker, holder, tonumber(ARGV[4]), ARGV[5] == '1', now)
give_back(holder, lane)
wake(slots_of(lane), now)
return outgoing()
