-- Takes slots again, above the limit if need be, for an execution that is known to live: the truth wins.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: worker, 2: holder, 3: lane, 4: units, comma-separated, 5: priority
local worker, holder, lane = ARGV[1], ARGV[2], ARGV[3]
local now = now_ms()
local member = string.match(holder, '^(.*)#%d+$')
local run = run_key(member)
for _, gate in ipairs(slots_of(lane)) do redis.call('ZADD', P .. 'slots:' .. gate, now, holder) end
keep_held(holder, lane, worker, now)
local state = redis.call('HGET', run, 'state')
if state == 'waiting' then
  local message = redis.call('HGET', run, 'message')
  leave_line(member, lane, now)
  hold(member, holder, lane, worker, now)
  redis.call('HSET', run, 'message', message)
elseif not state or state == 'lost' or state == 'done' then
  redis.call('HSET', run, 'number', next_number(), 'priority', ARGV[5], 'units', ARGV[4], 'since', now)
  hold(member, holder, lane, worker, now)
end
return redis.status_reply('OK')
