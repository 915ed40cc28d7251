-- Gives leases back that are held with a token; those of others stay.
-- KEYS    the lease keys
-- ARGV    1: token of the holder
-- returns how many were given back
local released = 0
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    released = released + redis.call('DEL', key)
  end
end
return released
