-- Finds the waiting runs of a part of a line whose place or reason has changed since it was last told.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: lane, 2: first place from 0, 3: last place
-- returns for each: what reports need, position from 1, gate, 1 when nobody has told yet that it waits
local lane, first = ARGV[1], tonumber(ARGV[2])
local gate = redis.call('HGET', P .. 'at', lane)
local changed = {}
if not gate then return changed end
for place, member in ipairs(redis.call('ZRANGE', P .. 'line:' .. lane, first, ARGV[3])) do
  local position = first + place
  local told = redis.call('HMGET', run_key(member), 'position', 'gate', 'meta')
  if tonumber(told[1]) ~= position or told[2] ~= gate then
    redis.call('HSET', run_key(member), 'position', position, 'gate', gate)
    changed[#changed + 1] = told[3] or ''
    changed[#changed + 1] = position
    changed[#changed + 1] = gate
    changed[#changed + 1] = told[1] and 0 or 1
  end
end
return changed
