-- Shared part: the quick way out, for an execution whose slots nobody waits for. It is in front of everything
-- else, whose functions alone take longer to make. Whatever else is the case, the command goes on behind it.
do
  local P, call = KEYS[1], redis.call
  local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
  local run = P .. 'run:' .. string.match(holder, '^(.*)#%d+$')
  local known = call('HMGET', run, 'holder', 'since', 'copies', 'meta')
  local slots, waited_for = {}, {}
  for gate in string.gmatch(lane, ' (slots|%S+)') do
    slots[#slots + 1] = P .. 'slots:' .. gate
    waited_for[#waited_for + 1] = P .. 'blocked:' .. gate
  end
  if known[1] == holder and (#slots == 0 or call('EXISTS', unpack(waited_for)) == 0) then
    if ARGV[8] then
      call('HDEL', ARGV[6], ARGV[8])
      call('ZREM', ARGV[7], ARGV[8])
    end
    call('HDEL', P .. 'held:' .. worker, holder)
    for _, key in ipairs(slots) do call('ZREM', key, holder) end
    local now = now_ms()
    local took = math.max(0, now - tonumber(known[2] or now))
    call('DEL', run)
    call('HSET', run, 'state', 'done', 'meta', (known[3] or '') .. (known[4] or ''))
    call('PEXPIRE', run, math.min(tonumber(ARGV[4]) + took, 24 * 3600 * 1000))
    return call('LLEN', P .. 'outgoing')
  end
end
