-- Tells what the code of a worker declares. A Redis that knows nothing lets nobody in for one lease: whoever
-- executes has told by then, or is dead.
-- requires limits_clock, limits_gates
-- KEYS    1: prefix of all keys
-- ARGV    1: an epoch in case there is none, random hex digits, 2: lease in ms, 3: ms in which a grant has to be taken up,
--         4: '1' when nothing is executing for sure, then field and value of each limit and rate
-- returns {epoch, ms until runs are let in}
local state, now = P .. 'state', now_ms()
if redis.call('HSETNX', state, 'epoch', ARGV[1]) == 1 then
  -- Somewhere below 2^40: no holder from before, whose execution may live, is ever named again.
  redis.call('SET', P .. 'seq', string.format('%d', tonumber(string.sub(ARGV[1], 1, 10), 16)))
  redis.call('HSET', state, 'ready_at', now + tonumber(ARGV[2]), 'swept_at', now)  -- a step back shows from now on
end
redis.call('HSET', state, 'lease', ARGV[2], 'grant', ARGV[3])

local latest = ARGV[4] == '1' and now or now + tonumber(ARGV[2])  -- beyond it the clock was set back
local ready_at = tonumber(redis.call('HGET', state, 'ready_at'))
if ready_at > latest then
  ready_at = latest
  redis.call('HSET', state, 'ready_at', ready_at)
  redis.call('ZADD', P .. 'due', 'XX', ready_at, START)
end

for place = 5, #ARGV, 2 do
  local field, value = ARGV[place], ARGV[place + 1]
  if redis.call('HGET', P .. 'declared', field) ~= value then
    redis.call('HSET', P .. 'declared', field, value)
    for _, gate in ipairs(redis.call('SMEMBERS', P .. 'gates:' .. field)) do
      redis.call('ZADD', P .. 'due', now, gate)  -- more may go now; the next sweep sees to it
    end
  end
end
return { redis.call('HGET', state, 'epoch'), math.max(0, ready_at - now) }
