-- Shared part: the quick way in, for an attempt that nobody has heard of and that nothing can hold back: nothing is
-- paused, nobody waits at its gates, all of them are slots, and there is room. It is in front of everything
-- else, whose functions alone take longer to make. Whatever else is the case, the command goes on behind it.
do
  local P, call = KEYS[1], redis.call
  local member, worker, lane = ARGV[1], ARGV[2], ARGV[3]
  local run = P .. 'run:' .. member
  local gates, in_the_way = {}, { run, P .. 'line:' .. lane, P .. 'paused' }
  for gate in string.gmatch(lane, ' (%S+)') do
    gates[#gates + 1] = gate
    in_the_way[#in_the_way + 1] = P .. 'blocked:' .. gate
  end

  local function has_room(gate)
    local field = string.match(gate, '^(slots|[^|]*)|')
    if not field then return false end
    local value = call('HGET', P .. 'overrides', field) or call('HGET', P .. 'declared', field)
    return call('ZCARD', P .. 'slots:' .. gate) < tonumber(value or '0')
  end

  local is_free = ARGV[7] == '' and call('EXISTS', unpack(in_the_way)) == 0
  for _, gate in ipairs(gates) do is_free = is_free and has_room(gate) end
  local state = is_free and call('HMGET', P .. 'state', 'epoch', 'ready_at', 'lease')
  local now = state and state[1] and now_ms()
  if now and (#gates == 0 or now >= tonumber(state[2] or '0')) then
    local number = call('INCR', P .. 'seq')
    local holder = member .. '#' .. number
    for _, gate in ipairs(gates) do call('ZADD', P .. 'slots:' .. gate, now, holder) end
    call('HSET', run, 'state', 'held', 'holder', holder, 'worker', worker, 'lane', lane,
      'number', number, 'priority', ARGV[5], 'units', ARGV[4], 'since', now, 'meta', ARGV[8], 'early', ARGV[9])
    call('HSET', P .. 'held:' .. worker, holder, lane)
    call('ZADD', P .. 'workers', 'NX', now + math.floor(tonumber(state[3] or '0') / 2), worker)
    return { 'run', holder, 0 }
  end
end
