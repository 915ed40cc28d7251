-- Closes a task, a limit or one key of it, for good or for a time; a longer pause stays.
-- requires limits_clock, limits_gates
-- KEYS    1: prefix of all keys
-- ARGV    1: target, 2: ms, or 'inf' for until it is resumed
-- returns 1 when the pause is new or longer than before, else 0
local target, now = ARGV[1], now_ms()
local before = redis.call('HGET', P .. 'paused', target)
if ARGV[2] == 'inf' then
  redis.call('HSET', P .. 'paused', target, 'inf')
  redis.call('ZREM', P .. 'due', target)
  return before == 'inf' and 0 or 1
end
local till = now + tonumber(ARGV[2])
if before and (before == 'inf' or tonumber(before) >= till) then return 0 end
redis.call('HSET', P .. 'paused', target, till)
redis.call('ZADD', P .. 'due', till, target)
return 1
