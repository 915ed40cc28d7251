-- Keeps a second copy of the message of a run that executes, for the case that its worker dies.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: member, 2: message, 3: key of the broker's list to grant into, or '', 4: what reports need,
--         5-7: the broker's hash and index of unacked messages and the tag there, or ''
-- returns 1, or 0 when it executes no longer
local run = run_key(ARGV[1])
local known = redis.call('HMGET', run, 'state', 'copies', 'meta', 'deaths')
if known[1] ~= 'held' then return 0 end
local meta = numbered(ARGV[4], tonumber(known[4] or '0'))  -- of the attempt that executes
redis.call('HSET', run, 'message', ARGV[2], 'queue', ARGV[3], 'meta', meta, 'copies', (known[2] or '') .. (known[3] or ''))
if ARGV[7] ~= '' then
  redis.call('HDEL', ARGV[5], ARGV[7])
  redis.call('ZREM', ARGV[6], ARGV[7])
end
return 1
