-- Shared part: the end of an execution. A run that has ended is remembered for as long as it took and a
-- while longer, with all that reports of it needed, so that a second delivery of its message starts nothing.

local function end_execution(worker, holder, least, now)
  local run = run_key(string.match(holder, '^(.*)#%d+$'))
  redis.call('HDEL', P .. 'held:' .. worker, holder)
  local known = redis.call('HMGET', run, 'holder', 'since', 'copies', 'meta')
  if known[1] ~= holder then return end
  local took = math.max(0, now - tonumber(known[2] or now))
  redis.call('DEL', run)
  redis.call('HSET', run, 'state', 'done', 'meta', (known[3] or '') .. (known[4] or ''))
  redis.call('PEXPIRE', run, math.min(least + took, 24 * 3600 * 1000))
end
