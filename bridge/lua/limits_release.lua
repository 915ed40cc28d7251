-- Frees the slots of an execution that has ended, and lets the next ones go.
-- requires limits_clock, limits_quick_release, limits_gates, limits_lanes, limits_ends
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: holder, 3: lane, 4: least time in ms for which a second delivery is recognised
-- returns how many granted runs wait to be published
local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
end_execution(worker, holder, tonumber(ARGV[4]), now)
give_back(holder, lane)
wake(slots_of(lane), now)
return outgoing()
