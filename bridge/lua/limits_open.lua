-- Lets runs through gates that an operator opened, and tells how many have more to let through at once.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    the gates
-- returns how many of the gates are due
local now, due = now_ms(), 0
wake(ARGV, now)
for _, gate in ipairs(ARGV) do
  local at = redis.call('ZSCORE', P .. 'due', gate)
  if at and tonumber(at) <= now then due = due + 1 end
end
return due
