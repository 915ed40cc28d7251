-- Forgets entries of one partition that are done with, and keeps what has to be kept of them.
-- KEYS    1: stream of the partition, 2: its set of runs whose last snapshot is unsent, 3: stream of the dead
-- ARGV    1: consumer group, 2: how many dead are kept, 3: number of entries, then their ids,
--         number of unsent runs, then their ids, number of fields of a dead entry, then for each dead
--         entry its names and values
-- returns how many entries were forgotten
-- Forgetting comes first: after a write, a Redis that is out of memory takes the rest as well. If it
-- refused, nothing would be forgotten any more, and it would stay full.
local at = 3
local function section()
  local count = tonumber(ARGV[at])
  local first = at + 1
  at = first + count
  return first, at - 1
end
local function in_pages(first, last, each)
  for from = first, last, 1000 do each(unpack(ARGV, from, math.min(last, from + 999))) end
end

local forgotten = 0
local first, last = section()
in_pages(first, last, function(...)
  redis.call('XACK', KEYS[1], ARGV[1], ...)
  forgotten = forgotten + redis.call('XDEL', KEYS[1], ...)
end)
first, last = section()
in_pages(first, last, function(...) redis.call('SADD', KEYS[2], ...) end)
local width = tonumber(ARGV[at])
for from = at + 1, #ARGV, width do
  redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[2], '*', unpack(ARGV, from, from + width - 1))
end
return forgotten
