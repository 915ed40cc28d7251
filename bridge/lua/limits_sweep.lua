-- Sees to what nobody else will: slots of dead workers, grants that were not taken up, windows and pauses
-- that are over, runs that expire while they wait.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: worker that asks, 2: lease in ms, 3: ms for which the pacer stays it
-- returns {1 when this worker is the pacer, ms until something is due, how many granted runs wait to be published,
--         workers buried, executions freed, how many runs died, what reports of each of them need,
--         then for each run to end: member, why, message, what reports of it need}
local asking, lease, stay = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local MOST = 50
local now = now_ms()
local freed, buried, died = 0, 0, {}

-- Everybody lines up again before anybody is let through, so that who comes back keeps his place.
local to_wake, is_noted = {}, {}
local function note(gates)
  for _, gate in ipairs(gates) do
    if not is_noted[gate] then
      is_noted[gate] = true
      to_wake[#to_wake + 1] = gate
    end
  end
end

-- What was timed by a clock that has been set back since is timed anew; the rest of a pause stays as long.
local swept_at = tonumber(redis.call('HGET', P .. 'state', 'swept_at') or '0')
if now < swept_at then
  local paused = redis.call('HGETALL', P .. 'paused')
  for place = 1, #paused, 2 do
    local target, till = paused[place], paused[place + 1]
    if till ~= 'inf' then redis.call('HSET', P .. 'paused', target, till - swept_at + now) end
  end
  for _, gate in ipairs(redis.call('ZRANGE', P .. 'due', 0, -1)) do redis.call('ZADD', P .. 'due', now, gate) end
end
redis.call('HSET', P .. 'state', 'swept_at', now)
local timed = redis.call('HMGET', P .. 'state', 'ready_at', 'grant')
local ready_at = tonumber(timed[1] or '0')
if ready_at > 0 and ready_at <= now then
  redis.call('HSET', P .. 'state', 'ready_at', 0)  -- once over, for good
elseif ready_at > now + lease then
  redis.call('HSET', P .. 'state', 'ready_at', now + lease)
  redis.call('ZADD', P .. 'due', 'XX', now + lease, START)
end
local latest = now + tonumber(timed[2] or '0')
local late = redis.call('ZRANGEBYSCORE', P .. 'grants', string.format('(%d', latest), '+inf', 'LIMIT', 0, MOST)
for _, member in ipairs(late) do
  redis.call('ZADD', P .. 'grants', latest, member)
end

-- A lease is half of the time that a worker may be silent, the other half is the suspicion, so that a step of
-- the clock buries nobody: the living renew before the suspicion is over.
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', P .. 'workers', now + lease, '+inf', 'LIMIT', 0, MOST)) do
  redis.call('ZADD', P .. 'workers', now + math.floor(lease / 2), worker)
end
for _, worker in ipairs(redis.call('HKEYS', P .. 'suspects')) do
  local score = redis.call('ZSCORE', P .. 'workers', worker)
  if not score or tonumber(score) > now then redis.call('HDEL', P .. 'suspects', worker) end
end

-- A suspicion is of one deadline: a worker that has renewed since, however long ago by now, is suspected anew.
local function is_dead(worker, deadline)
  if deadline == 0 then return true end
  local since, seen = string.match(redis.call('HGET', P .. 'suspects', worker) or '', '^(%d+):(%d+)$')
  if not since or tonumber(since) > now or tonumber(seen) ~= deadline then
    redis.call('HSET', P .. 'suspects', worker, string.format('%d:%d', now, deadline))
    return false
  end
  return now - since >= lease / 2
end

local function bury(worker)
  local held = redis.call('HSCAN', P .. 'held:' .. worker, 0, 'COUNT', MOST)[2]
  for place = 1, #held, 2 do
    local holder, lane = held[place], held[place + 1]
    local member = string.match(holder, '^(.*)#%d+$')
    redis.call('HDEL', P .. 'held:' .. worker, holder)
    give_back(holder, lane)
    local known = redis.call('HMGET', run_key(member), 'holder', 'meta', 'early')
    if known[1] == holder then
      set_back(member, 'died', now)
      if known[2] then died[#died + 1] = known[2] end
      -- Unless the broker gives its message back, which it had most likely acked; or a copy of it lines up.
      if known[3] == '1' and redis.call('HGET', run_key(member), 'state') == 'lost' then
        redis.call('HSET', run_key(member), 'why', 'worker_lost')
        redis.call('ZADD', P .. 'ending', now + 2 * lease, member)
      end
    end
    note(split(lane))
    freed = freed + 1
  end
  if redis.call('EXISTS', P .. 'held:' .. worker) == 0 then
    redis.call('ZREM', P .. 'workers', worker)
    redis.call('HDEL', P .. 'suspects', worker)
    buried = buried + 1
  end
end

local silent = redis.call('ZRANGEBYSCORE', P .. 'workers', '-inf', now, 'WITHSCORES', 'LIMIT', 0, MOST)
for place = 1, #silent, 2 do
  if is_dead(silent[place], tonumber(silent[place + 1])) then bury(silent[place]) end
end

for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'grants', '-inf', now, 'LIMIT', 0, MOST)) do
  redis.call('ZREM', P .. 'grants', member)
  local known = redis.call('HMGET', run_key(member), 'state', 'holder', 'lane', 'queue', 'message')
  if known[1] == 'granted' then
    give_back(known[2], known[3])
    -- A message that nobody has taken stays in its queue; one that is gone may be lost with a killed worker.
    local queue, message = known[4] or '', known[5]
    if queue ~= '' and message and redis.call('LPOS', queue, message, 'RANK', -1) then
      redis.call('HDEL', run_key(member), 'message')
    end
    set_back(member, 'returned', now)
    note(split(known[3]))
    freed = freed + 1
  end
end

for _, gate in ipairs(redis.call('ZRANGEBYSCORE', P .. 'due', '-inf', now, 'LIMIT', 0, MOST)) do
  redis.call('ZREM', P .. 'due', gate)
  if is_paused(gate, now) then schedule(gate, now) else redis.call('HDEL', P .. 'paused', gate) end
  note({ gate })
end

local ended = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', P .. 'ending', '-inf', now, 'LIMIT', 0, MOST)) do
  local known = redis.call('HMGET', run_key(member), 'state', 'lane', 'message', 'why', 'meta')
  redis.call('ZREM', P .. 'ending', member)
  if known[1] == 'waiting' then
    leave_line(member, known[2], now)
    note(split(known[2]))
    redis.call('HSET', run_key(member), 'state', 'ending', 'why', 'expired')
  end
  if known[1] == 'lost' and known[4] then redis.call('HSET', run_key(member), 'state', 'ending') end
  if known[1] == 'waiting' or known[1] == 'ending' or (known[1] == 'lost' and known[4]) then  -- told again until somebody has seen to it
    redis.call('ZADD', P .. 'ending', now + 30000, member)
    ended[#ended + 1] = member
    ended[#ended + 1] = known[4] or 'expired'
    ended[#ended + 1] = known[3]
    ended[#ended + 1] = known[5]
  end
end

local waited_at = {}
for _, gate in ipairs(to_wake) do
  if redis.call('EXISTS', P .. 'blocked:' .. gate) == 1 then waited_at[#waited_at + 1] = gate end
end
wake(waited_at, now)

if not redis.call('SET', P .. 'pacer', asking, 'NX', 'PX', stay) then
  -- A dead worker that was the pacer when the clock was set back would stay it for as long.
  local is_stale = redis.call('PTTL', P .. 'pacer') > stay
  if is_stale or redis.call('GET', P .. 'pacer') == asking then redis.call('PEXPIRE', P .. 'pacer', stay) end
end
local next_at = now + lease
for _, name in ipairs({ 'due', 'grants', 'ending' }) do
  local first = redis.call('ZRANGE', P .. name, 0, 0, 'WITHSCORES')
  if first[2] then next_at = math.min(next_at, tonumber(first[2])) end
end
local is_pacer = redis.call('GET', P .. 'pacer') == asking and 1 or 0
local answer = { is_pacer, math.max(0, next_at - now), outgoing(), buried, freed, #died, unpack(died) }
for _, each in ipairs(ended) do answer[#answer + 1] = each end
return answer
