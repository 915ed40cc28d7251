-- Counts what is taken at gates: slots, or units in the window of a rate.
-- requires limits_clock, limits_gates
-- KEYS    1: prefix of all keys
-- ARGV    the gates
-- returns a number for each
local now, used = now_ms(), {}
for place, gate in ipairs(ARGV) do
  local kind, name = parse(gate)
  if kind == 'slots' then
    used[place] = redis.call('ZCARD', P .. 'slots:' .. gate)
  else
    used[place] = value_of(kind, name) and used_units(rate_of(gate), now) or 0
  end
end
return used
