-- Takes slots again, above the limit if need be, for an execution that is known to live: the truth wins.
-- A run that was taken for lost meanwhile waits no more and is granted no more; its message is a second copy.
-- One that others have executed meanwhile, be it to its end or not, is left as it is.
-- requires limits_clock, limits_gates, limits_lanes, limits_ends
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: holder, 3: lane, 4: units, comma-separated, 5: priority, 6: what reports of it need,
--         7: '1' when its message was acked before it executed
-- returns 1 when the run had been taken for lost, else 0
local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local member = string.match(holder, '^(.*)#%d+$')
local run = run_key(member)
for _, gate in ipairs(slots_of(lane)) do redis.call('ZADD', P .. 'slots:' .. gate, 'NX', now, holder) end
keep_held(holder, lane, worker, now)

local known = redis.call('HMGET', run, 'state', 'message')
local state, message = known[1], known[2]
local is_recalled = call_off(member, holder, now)
if is_recalled and (state == 'waiting' or state == 'granted') then
  hold(member, holder, lane, worker, now)
  if message then redis.call('HSET', run, 'message', message) end
  wake(split(lane), now)
elseif not state or is_recalled then
  redis.call('HSET', run, 'number', next_number(), 'priority', ARGV[5], 'units', ARGV[4], 'since', now)
  hold(member, holder, lane, worker, now)
end
if redis.call('HGET', run, 'holder') ~= holder then return 0 end
redis.call('HSET', run, 'meta', ARGV[6], 'early', ARGV[7])
return state and state ~= 'held' and 1 or 0
