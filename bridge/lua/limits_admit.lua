-- Takes the slots that an attempt of a run needs, or parks its message until it can have them.
-- requires limits_clock, limits_quick_admit, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: member, 2: worker, 3: lane, 4: units of its gates, comma-separated, 5: priority, 0 is first,
--         6: wait, drop or cancel_running, 7: epoch under which the message was parked before, or '',
--         8: what reports of it need, 9: '1' when its message is acked before it executes,
--         then none to be told only, or 10: message to park, 11: key of the broker's list to grant into, or '',
--         12: what reports of its position need, 13: expiry in ms of the epoch, or 0,
--         14-16: the broker's hash and index of unacked messages and the tag there, or ''
-- returns {'run', holder, how many attempts of it died with their workers}, {'full', gate},
--         {'waiting', position, gate, victims...}, {'dropped', gate}, {'duplicate'},
--         {'spare'} when it executes elsewhere, {'unknown'} when this Redis knows no limits
local member, worker, lane, units, priority = ARGV[1], ARGV[2], ARGV[3], units_of(ARGV[4]), tonumber(ARGV[5])
local mode, parked_under, message, expires = ARGV[6], ARGV[7], ARGV[10] or '', tonumber(ARGV[13] or '0')
local now, run = now_ms(), run_key(member)

local epoch = redis.call('HGET', P .. 'state', 'epoch')
if not epoch then return { 'unknown' } end

local known = redis.call('HMGET', run, 'state', 'number', 'holder', 'lane', 'deaths', 'meta')
local state, number, deaths = known[1], tonumber(known[2]), tonumber(known[5] or '0')

if state == 'done' and parked_under ~= epoch and is_published_anew(known[6], ARGV[8]) then
  redis.call('DEL', run)
  state = false
end

if state == 'granted' then
  redis.call('ZREM', P .. 'grants', member)
  redis.call('LREM', P .. 'outgoing', 0, member)
  hold(member, known[3], known[4], worker, now)
  redis.call('HSET', run, 'meta', numbered(ARGV[8], deaths))
  return { 'run', known[3], deaths }
elseif state == 'held' then
  return { 'spare' }
elseif state == 'waiting' or state == 'ending' or state == 'done' or (not state and parked_under == epoch) then
  return { 'duplicate' }
end

if state == 'lost' then  -- it came back: nobody has to end it
  redis.call('ZREM', P .. 'ending', member)
  redis.call('HDEL', run, 'why')
end
local score = priority * PRIORITY + PRIORITY - 1
local is_alone = redis.call('EXISTS', P .. 'line:' .. lane) == 0
local closed = 'behind others'
if is_alone then closed = closing_gate(lane, units, score, now) end
if not closed then
  redis.call('HSET', run, 'number', number or next_number(), 'priority', priority, 'units', ARGV[4])
  local holder = take(member, lane, units, now)
  hold(member, holder, lane, worker, now)
  redis.call('HSET', run, 'since', now, 'meta', numbered(ARGV[8], deaths), 'early', ARGV[9])
  return { 'run', holder, deaths }
elseif mode == 'drop' then
  redis.call('DEL', run)
  return { 'dropped', is_alone and closed or redis.call('HGET', P .. 'at', lane) }
elseif message == '' then
  return { 'full', closed }
end

number = number or next_number()
redis.call('HSET', run, 'state', 'waiting', 'number', number, 'priority', priority, 'units', ARGV[4],
  'lane', lane, 'message', message, 'queue', ARGV[11], 'meta', numbered(ARGV[12], deaths - 1), 'early', ARGV[9], 'since', now)
redis.call('PERSIST', run)
if expires > 0 then redis.call('ZADD', P .. 'ending', expires, member) end
local here = { member = member, worker = worker }
line_up(member, lane, priority, number, now)
wake(split(lane), now, here)
if here.holder then
  redis.call('HSET', run, 'meta', numbered(ARGV[8], deaths))
  return { 'run', here.holder, deaths }
end
if ARGV[16] ~= '' then  -- the message is here; of a run that executes it stays with the broker
  redis.call('HDEL', ARGV[14], ARGV[16])
  redis.call('ZREM', ARGV[15], ARGV[16])
end

local gate = redis.call('HGET', P .. 'at', lane)
local position = redis.call('ZRANK', P .. 'line:' .. lane, member) + 1
redis.call('HSET', run, 'position', position, 'gate', gate)
local answer = { 'waiting', position, gate }
if mode == 'cancel_running' and parse(gate) == 'slots' then
  local task = split(lane)[1]
  for _, other in ipairs(redis.call('ZRANGE', P .. 'line:' .. lane, 0, -1)) do
    if other ~= member then answer[#answer + 1] = 'waiting ' .. other end
  end
  for _, holder in ipairs(redis.call('ZRANGE', P .. 'slots:' .. gate, 0, -1)) do
    local other = string.match(holder, '^(.*)#%d+$')
    local running = redis.call('HMGET', run_key(other), 'lane', 'worker')
    if running[2] and split(running[1])[1] == task then
      answer[#answer + 1] = 'running ' .. other .. ' ' .. running[2]
      break
    end
  end
end
return answer
