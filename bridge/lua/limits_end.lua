-- Ends executions that hold no slots, and whose messages will not come back on purpose.
-- requires limits_clock, limits_gates, limits_lanes, limits_ends
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: least time in ms for which a second delivery is recognised, then the holders
local now = now_ms()
for place = 3, #ARGV do end_execution(ARGV[1], ARGV[place], tonumber(ARGV[2]), true, now) end
return redis.status_reply('OK')
