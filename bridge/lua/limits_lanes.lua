-- Shared part: lanes. A lane holds the runs that wait for the same gates, first come first served, those of
-- higher priority first. A lane with waiters stands in line at exactly one gate: the first that was found
-- closed. So a gate that opens looks only at the lanes that stand there, in the order of their turns,
-- and a lane that another gate holds back as well moves there and is waited upon by nobody.

local MOST_MOVES = 64  -- of lanes in one command; what is left is due at once, for the next sweep
local PRIORITY = 4398046511104  -- 2^42: a better priority comes before any earlier arrival

local function run_key(member)
  return P .. 'run:' .. member
end

local function next_number()
  return redis.call('INCR', P .. 'seq')
end

local function units_of(text)
  local units = {}
  for one in string.gmatch(text, '%d+') do units[#units + 1] = tonumber(one) end
  return units
end

local function head_of(lane)
  local member = redis.call('ZRANGE', P .. 'line:' .. lane, 0, 0)[1]
  if not member then return nil end
  local known = redis.call('HMGET', run_key(member), 'units', 'priority')
  return { member = member, units = units_of(known[1] or ''), priority = tonumber(known[2] or '0') }
end

local function stands_before(gate, score)
  local first = redis.call('ZRANGE', P .. 'blocked:' .. gate, 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) < score
end

-- The first gate that holds the lane back, or nil when its head may go.
local function closing_gate(lane, units, score, now)
  local parts = split(lane)
  if #parts > 1 and not is_open(START, 0, now) then return START end
  if redis.call('HLEN', P .. 'paused') > 0 then
    for _, part in ipairs(parts) do
      local pause = pause_of(part, now)
      if pause then return pause end
    end
  end
  for place = 2, #parts do
    local gate = parts[place]
    if not is_open(gate, units[place - 1] or 1, now) or stands_before(gate, score) then return gate end
  end
  return nil
end

local function names_of(gate)
  local kind, name = parse(gate)
  return P .. 'gates:' .. kind .. '|' .. name
end

-- When a gate opens by itself: the head's units fit the window, or the pause is over.
local function schedule(gate, now)
  local kind = parse(gate)
  local at
  if kind == 'rate' then
    local lane = redis.call('ZRANGE', P .. 'blocked:' .. gate, 0, 0)[1]
    local head = lane and head_of(lane)
    if not head then return end
    local units = 0
    for place, part in ipairs(split(lane)) do
      if part == gate then units = head.units[place - 1] end
    end
    at = room_at(gate, units, now)
  elseif kind == 'start' then
    at = not is_open(START, 0, now) and redis.call('HGET', P .. 'state', 'ready_at')
  elseif kind == 'task' or kind == 'limit' then
    at = redis.call('HGET', P .. 'paused', gate)
    if at == 'inf' then return end
  end
  if at then redis.call('ZADD', P .. 'due', at, gate) end
end

local function place_at(lane, gate, score, now)
  redis.call('ZADD', P .. 'blocked:' .. gate, score, lane)
  redis.call('SADD', names_of(gate), gate)
  redis.call('HSET', P .. 'at', lane, gate)
  if redis.call('ZRANK', P .. 'blocked:' .. gate, lane) == 0 then schedule(gate, now) end
end

local function take_away(lane, gate)
  redis.call('ZREM', P .. 'blocked:' .. gate, lane)
  if redis.call('EXISTS', P .. 'blocked:' .. gate) == 0 then
    redis.call('SREM', names_of(gate), gate)
    if parse(gate) == 'rate' then redis.call('ZREM', P .. 'due', gate) end
  end
end

-- Waiting runs are also found by their task id, the member without attempt and nesting.
local function task_id_of(member)
  return string.match(member, '^(.*):%d+:%d+$') or member
end

local function not_parked(member)
  local task_id = task_id_of(member)
  if redis.call('HGET', P .. 'parked', task_id) == member then redis.call('HDEL', P .. 'parked', task_id) end
end

local function forget_lane(lane)
  redis.call('HDEL', P .. 'at', lane)
  redis.call('HDEL', P .. 'turns', lane)
end

local function score_of(lane, priority)
  return priority * PRIORITY + tonumber(redis.call('HGET', P .. 'turns', lane))
end

-- Puts the lane where its head has to wait; called whenever the head may have changed.
local function settle(lane, now, fallback)
  local before = redis.call('HGET', P .. 'at', lane)
  if before then take_away(lane, before) end
  local head = head_of(lane)
  if not head then return forget_lane(lane) end
  local score = score_of(lane, head.priority)
  place_at(lane, closing_gate(lane, head.units, score, now) or fallback or before, score, now)
end

local function first_gate(lane)
  local parts = split(lane)
  return parts[2] or parts[1]
end

-- Adds a waiting run to its lane; a run that comes back keeps its place by its number.
local function line_up(member, lane, priority, number, now)
  redis.call('ZADD', P .. 'line:' .. lane, priority * PRIORITY + number, member)
  redis.call('HSET', P .. 'parked', task_id_of(member), member)
  if redis.call('HEXISTS', P .. 'turns', lane) == 0 then
    redis.call('HSET', P .. 'turns', lane, next_number())
  end
  settle(lane, now, first_gate(lane))
end

local function leave_line(member, lane, now)
  redis.call('ZREM', P .. 'line:' .. lane, member)
  not_parked(member)
  redis.call('ZREM', P .. 'ending', member)
  settle(lane, now, first_gate(lane))
end

local function take(member, lane, units, now)
  local holder = member .. '#' .. next_number()
  local parts = split(lane)
  for place = 2, #parts do
    local gate = parts[place]
    if parse(gate) == 'slots' then
      redis.call('ZADD', P .. 'slots:' .. gate, now, holder)
    else
      use_units(gate, units[place - 1] or 1, now)
    end
  end
  return holder
end

local function give_back(holder, lane)
  for _, gate in ipairs(split(lane)) do
    if parse(gate) == 'slots' then redis.call('ZREM', P .. 'slots:' .. gate, holder) end
  end
end

-- A worker that holds something is always among those that are watched, be its own lease late or lost.
local function keep_held(holder, lane, worker, now)
  redis.call('HSET', P .. 'held:' .. worker, holder, lane)
  local lease = tonumber(redis.call('HGET', P .. 'state', 'lease') or '0')
  redis.call('ZADD', P .. 'workers', 'NX', now + math.floor(lease / 2), worker)
end

local function hold(member, holder, lane, worker, now)
  local run = run_key(member)
  redis.call('HSET', run, 'state', 'held', 'holder', holder, 'worker', worker, 'lane', lane)
  redis.call('HDEL', run, 'message', 'gate', 'position')
  redis.call('PERSIST', run)
  keep_held(holder, lane, worker, now)
end

-- Sends a granted run on its way: to the consuming end of its queue where this Redis is the broker,
-- else to the list of what some process has to publish.
local function send(member, holder, now)
  local run = run_key(member)
  local known = redis.call('HMGET', run, 'queue', 'message')
  redis.call('HSET', run, 'state', 'granted', 'holder', holder)
  redis.call('HDEL', run, 'gate', 'position')
  redis.call('ZADD', P .. 'grants', now + tonumber(redis.call('HGET', P .. 'state', 'grant') or '10000'), member)
  if known[1] and known[1] ~= '' then
    redis.call('RPUSH', known[1], known[2])  -- kept here as well until it is taken up
  else
    redis.call('RPUSH', P .. 'outgoing', member)
  end
end

-- The head of a lane starts, or is on its way to; the lane's turn comes again after all others'.
local function grant(lane, head, gate, now, here)
  local run = run_key(head.member)
  local holder = take(head.member, lane, head.units, now)
  redis.call('ZREM', P .. 'line:' .. lane, head.member)
  not_parked(head.member)
  redis.call('ZREM', P .. 'ending', head.member)
  redis.call('HSET', P .. 'turns', lane, next_number())
  if here and here.member == head.member then
    hold(head.member, holder, lane, here.worker, now)
    here.holder = holder
  else
    send(head.member, holder, now)
  end
  settle(lane, now, gate)
end

-- The lane that is next at any of the gates, in the order of turns over all of them.
local function next_lane(gates, now)
  local best
  for _, gate in ipairs(gates) do
    local first = redis.call('ZRANGE', P .. 'blocked:' .. gate, 0, 0, 'WITHSCORES')
    local score = tonumber(first[2])
    if score and (not best or score < best.score) then
      local head = head_of(first[1])
      local units = 0
      for place, part in ipairs(split(first[1])) do
        if part == gate and head then units = head.units[place - 1] end
      end
      if is_open(gate, units or 1, now) then best = { lane = first[1], gate = gate, score = score, head = head } end
    end
  end
  return best
end

-- Lets runs through gates that may have opened. `here` is a run whose message the caller has at hand.
local function wake(gates, now, here)
  for _ = 1, MOST_MOVES do
    local found = next_lane(gates, now)
    if not found then
      for _, gate in ipairs(gates) do schedule(gate, now) end
      return
    end
    local lane, gate = found.lane, found.gate
    take_away(lane, gate)
    redis.call('HDEL', P .. 'at', lane)
    local closed = found.head and closing_gate(lane, found.head.units, found.score, now)
    if not found.head then
      forget_lane(lane)
    elseif closed then
      place_at(lane, closed, found.score, now)
    else
      grant(lane, found.head, gate, now, here)
    end
  end
  for _, gate in ipairs(gates) do
    if redis.call('EXISTS', P .. 'blocked:' .. gate) == 1 then redis.call('ZADD', P .. 'due', now, gate) end
  end
end

local function slots_of(lane)
  local gates = {}
  for _, gate in ipairs(split(lane)) do
    if parse(gate) == 'slots' then gates[#gates + 1] = gate end
  end
  return gates
end

-- What reports of a run need, told of so many attempts more than its message knows of.
local function numbered(meta, more)
  if more <= 0 then return meta end
  return (string.gsub(meta, '"n":(%d+)', function(n) return string.format('"n":%d', n + more) end, 1))
end

-- Whether a message is no copy of those of which `metas` tells, but was sent after them, under the same id.
local function is_published_anew(metas, meta)
  local publication = string.match(meta, '"p":"%x+"')
  return publication and metas and string.find(metas, '"p":"%x') and not string.find(metas, publication, 1, true)
end

-- A run whose slots are free again although it did not end: its message comes back, or is here to line up.
-- Who held it last is remembered; a grant that nobody took up changes nothing about that.
local function set_back(member, state, now)
  local run = run_key(member)
  if state == 'died' then  -- an attempt that its worker's death has ended
    state = 'lost'
    redis.call('HINCRBY', run, 'deaths', 1)
  end
  local known = redis.call('HMGET', run, 'message', 'lane', 'priority', 'number', 'holder')
  if state ~= 'returned' then redis.call('HSET', run, 'lost_by', known[5] or '') end
  redis.call('HDEL', run, 'holder', 'worker')
  if known[1] then
    redis.call('LREM', P .. 'outgoing', 0, member)
    redis.call('HSET', run, 'state', 'waiting')
    line_up(member, known[2], tonumber(known[3]), tonumber(known[4]), now)
  else
    redis.call('HSET', run, 'state', state)
    redis.call('PEXPIRE', run, 7 * 24 * 3600 * 1000)
  end
end

local function outgoing()
  return redis.call('LLEN', P .. 'outgoing')
end
