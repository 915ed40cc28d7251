-- Shared part: the one clock that leases, grants, rates and pauses are judged by.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
