-- Shared part: the end of an execution. A run that has ended is remembered for as long as it took and a
-- while longer, with all that reports of it needed, so that a second delivery of its message starts nothing.

-- Has a run that was taken for lost neither wait nor be granted any more, unless others held it since this
-- holder did: they may have been told to stop for each other. Returns whether it was.
local function call_off(member, holder, now)
  local known = redis.call('HMGET', run_key(member), 'state', 'holder', 'lane', 'lost_by')
  local state, lane = known[1], known[3]
  if known[4] and known[4] ~= holder then
    return false
  elseif state == 'waiting' then
    leave_line(member, lane, now)
  elseif state == 'granted' then
    redis.call('ZREM', P .. 'grants', member)
    redis.call('LREM', P .. 'outgoing', 0, member)
    give_back(known[2], lane)
  elseif state == 'lost' or state == 'returned' then
    redis.call('ZREM', P .. 'ending', member)
  else
    return false
  end
  return true
end

-- An execution that is over, and whose message will not come back on purpose, has ended even though its worker
-- was taken for dead meanwhile, unless others execute its run again by now.
local function end_execution(worker, holder, least, is_over, now)
  local member = string.match(holder, '^(.*)#%d+$')
  local run = run_key(member)
  redis.call('HDEL', P .. 'held:' .. worker, holder)
  local known = redis.call('HMGET', run, 'holder', 'since', 'copies', 'meta', 'lane')
  local is_recalled = known[1] ~= holder and is_over and call_off(member, holder, now)
  if known[1] ~= holder and not is_recalled then return end
  local took = math.max(0, now - tonumber(known[2] or now))
  redis.call('DEL', run)
  redis.call('HSET', run, 'state', 'done', 'meta', (known[3] or '') .. (known[4] or ''))
  redis.call('PEXPIRE', run, math.min(least + took, 24 * 3600 * 1000))
  if is_recalled then wake(split(known[5]), now) end
end
