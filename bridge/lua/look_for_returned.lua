-- Looks after messages that went back to their queues: one that is gone from there without having been noted
-- as taken was lost with a worker that died, or was cut off, as it took it; it goes back once more.
-- KEYS    1: hash of the messages that went back, by tag, as JSON lists of queue and message,
--         2: index of when each was last seen in its queue, in ms, negative once it is missing, 0 at first,
--         3: when messages were last in danger
-- ARGV    1: '1' when messages were in danger since the last look, 2: ms after which one that is gone was
--         taken by somebody who does not note it, or purged
-- returns how many went back once more
local MOST, EVERY = 20, 1000  -- messages of a look; ms
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[1] == '1' then redis.call('SET', KEYS[3], now) end
local danger_at = tonumber(redis.call('GET', KEYS[3]) or '-1')
local again = 0

local function seen(tag)
  redis.call('ZADD', KEYS[2], now, tag)
end

local function forget(tag)
  redis.call('ZREM', KEYS[2], tag)
  redis.call('HDEL', KEYS[1], tag)
end

local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - EVERY, 'WITHSCORES', 'LIMIT', 0, MOST)
for place = 1, #due, 2 do
  local tag, seen_at = due[place], tonumber(due[place + 1])
  local kept = redis.call('HGET', KEYS[1], tag)
  local queue, message
  if kept then queue, message = unpack(cjson.decode(kept)) end
  if not kept then
    forget(tag)
  elseif redis.call('LPOS', queue, message, 'RANK', -1) then
    seen(tag)
  elseif seen_at >= 0 then  -- or somebody has taken it and is about to note it
    redis.call('ZADD', KEYS[2], -(seen_at > 0 and seen_at or now), tag)
  elseif danger_at >= -seen_at then
    redis.call('RPUSH', queue, message)
    seen(tag)
    again = again + 1
  elseif now + seen_at > tonumber(ARGV[2]) then
    forget(tag)
  end
end
return again
