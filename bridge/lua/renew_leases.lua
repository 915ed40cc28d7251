-- Renews the leases that are still held with a token.
-- KEYS    the lease keys
-- ARGV    1: token of the holder, 2: time to live in milliseconds
-- returns for each key 1 when it was renewed, 0 when it is free or another's
local held = {}
for place, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    redis.call('PEXPIRE', key, ARGV[2])
    held[place] = 1
  else
    held[place] = 0
  end
end
return held
