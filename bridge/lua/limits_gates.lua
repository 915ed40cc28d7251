-- Shared part: gates. A gate is one thing that can hold a run back: the slots of a limit, the window
-- of a rate, a pause, or the start of a Redis that knows nothing yet of what is running.

local P = KEYS[1]
local START = 'start||'

local function parse(gate)
  return string.match(gate, '^(%a+)|([^|]*)|(.*)$')
end

local function split(text)
  local parts = {}
  for part in string.gmatch(text, '%S+') do parts[#parts + 1] = part end
  return parts
end

-- What operators set goes over what the code declares; unknown is closed.
local function value_of(kind, name)
  local field = kind .. '|' .. name
  return redis.call('HGET', P .. 'overrides', field) or redis.call('HGET', P .. 'declared', field)
end

local function is_paused(target, now)
  local till = redis.call('HGET', P .. 'paused', target)
  return till and (till == 'inf' or tonumber(till) > now)
end

-- The pause that holds back one part of a lane, if any.
local function pause_of(part, now)
  local kind, name, key = parse(part)
  if kind == 'task' then
    return is_paused(part, now) and part
  end
  local whole = 'limit|' .. name .. '|'
  if is_paused(whole, now) then return whole end
  return key ~= '' and is_paused(whole .. key, now) and whole .. key
end

-- A rate is a log of what started within its window: a list of '<granule in ms>:<units>', oldest first,
-- and the sum of its units. A granule is a thousandth of the window, so a log is short whatever the rate.
local function rate_of(gate)
  local _, name = parse(gate)
  local count, per = string.match(value_of('rate', name) or '0:1000', '^(%d+):(%d+)$')
  per = tonumber(per)
  return { count = tonumber(count), per = per, granule = math.max(1, math.floor(per / 1000)),
           log = P .. 'rate:' .. gate, sum = P .. 'used:' .. gate }
end

local function entry_of(text)
  local at, units = string.match(text, '^(%d+):(%d+)$')
  return tonumber(at), tonumber(units)
end

local function keep_rate(rate)
  local ttl = rate.per + 2 * rate.granule
  redis.call('PEXPIRE', rate.log, ttl)
  redis.call('PEXPIRE', rate.sum, ttl)
end

local function used_units(rate, now)
  local newest = redis.call('LINDEX', rate.log, -1)
  if newest and entry_of(newest) > now + rate.granule then  -- the clock was set back: the window starts anew
    local used = redis.call('GET', rate.sum) or '0'
    redis.call('DEL', rate.log)
    redis.call('RPUSH', rate.log, string.format('%d:%s', now - now % rate.granule, used))
    keep_rate(rate)
  end
  while true do
    local oldest = redis.call('LINDEX', rate.log, 0)
    if not oldest then break end
    local at, units = entry_of(oldest)
    if at + rate.granule + rate.per > now then break end
    redis.call('LPOP', rate.log)
    redis.call('DECRBY', rate.sum, units)
  end
  return tonumber(redis.call('GET', rate.sum) or '0')
end

local function use_units(gate, units, now)
  if units == 0 then return end
  local rate = rate_of(gate)
  local at = now - now % rate.granule
  local newest = redis.call('LINDEX', rate.log, -1)
  if newest and entry_of(newest) >= at then  -- later by a clock that was set back within a granule
    local latest, before = entry_of(newest)
    redis.call('LSET', rate.log, -1, string.format('%d:%d', latest, before + units))
  else
    redis.call('RPUSH', rate.log, string.format('%d:%d', at, units))
  end
  redis.call('INCRBY', rate.sum, units)
  keep_rate(rate)
end

-- When the window has room for so many units; those that are more than fit go once it is empty.
local function room_at(gate, units, now)
  local rate = rate_of(gate)
  if rate.count == 0 then return now + rate.per end
  local over = used_units(rate, now) + math.min(units, rate.count) - rate.count
  local place = 0
  while over > 0 do
    local entry = redis.call('LINDEX', rate.log, place)
    if not entry then return now + rate.per end
    local at, freed = entry_of(entry)
    over = over - freed
    if over <= 0 then return at + rate.granule + rate.per end
    place = place + 1
  end
  return now
end

-- Whether a gate lets so many units through now; who waits at it is no matter here.
local function is_open(gate, units, now)
  local kind, name = parse(gate)
  if kind == 'slots' then
    return redis.call('ZCARD', P .. 'slots:' .. gate) < tonumber(value_of(kind, name) or '0')
  elseif kind == 'rate' then
    local rate = rate_of(gate)
    local used = used_units(rate, now)
    return used + units <= rate.count or (used == 0 and units > rate.count and rate.count > 0)
  elseif kind == 'start' then
    return now >= tonumber(redis.call('HGET', P .. 'state', 'ready_at') or '0')
  end
  return not is_paused(gate, now)
end
