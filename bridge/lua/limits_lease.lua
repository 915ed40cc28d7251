-- Leases an attempt of a run that no limit holds back, unless something is known of it or some task is paused.
-- Every run comes by here: nothing is required that takes longer to make than what is done.
-- KEYS    1: prefix of all keys
-- ARGV    1: member, 2: worker, 3: lane, which has no gates, 4: holder, 5: half of the lease in ms,
--         6: what reports of it need, 7: '1' when its message is acked before it executes
-- returns 1, or 0 when the whole admission has to decide
local P, call = KEYS[1], redis.call
local run = P .. 'run:' .. ARGV[1]
if call('EXISTS', run, P .. 'paused') > 0 then
  return call('HGET', run, 'holder') == ARGV[4] and 1 or 0  -- asked again, as the answer was lost
end
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
call('HSET', run, 'state', 'held', 'holder', ARGV[4], 'worker', ARGV[2], 'lane', ARGV[3], 'since', now,
  'number', 0, 'priority', 0, 'units', '', 'meta', ARGV[6], 'early', ARGV[7])
call('HSET', P .. 'held:' .. ARGV[2], ARGV[4], ARGV[3])
call('ZADD', P .. 'workers', 'NX', now + ARGV[5], ARGV[2])
return 1
