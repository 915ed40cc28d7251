-- Reads some of the lanes with waiting runs: where each stands, how many wait in it, since when the longest.
-- requires limits_clock, limits_gates, limits_lanes
-- KEYS    1: prefix of all keys
-- ARGV    1: cursor, 0 at first, 2: about how many lanes
-- returns {cursor, 0 at the end, then for each: lane, gate, runs, ms of the longest wait}
local now = now_ms()
local found = redis.call('HSCAN', P .. 'at', ARGV[1], 'COUNT', ARGV[2])
local answer = { found[1] }

-- Runs of one priority stand in the order of their arrival.
local function longest_wait(line)
  local longest, from = 0, '-inf'
  while true do
    local first = redis.call('ZRANGEBYSCORE', line, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not first[1] then return longest end
    local since = redis.call('HGET', run_key(first[1]), 'since')
    longest = math.max(longest, now - tonumber(since or now))
    from = string.format('%.0f', (math.floor(tonumber(first[2]) / PRIORITY) + 1) * PRIORITY)
  end
end

for place = 1, #found[2], 2 do
  local lane = found[2][place]
  local line = P .. 'line:' .. lane
  answer[#answer + 1] = lane
  answer[#answer + 1] = found[2][place + 1]
  answer[#answer + 1] = redis.call('ZCARD', line)
  answer[#answer + 1] = longest_wait(line)
end
return answer
