-- Keeps the checkpoint of a run, unless a later execution has taken it over.
-- KEYS    1: what is kept of the run
-- ARGV    1: how often the run was replaced under its id, 2: turn of this execution, 3: state,
--         4: counts that were told, or '', 5: time to live in milliseconds
-- returns 1, or 0 when it is refused
local key, nesting = KEYS[1], ARGV[1]
local turn = redis.call('HGET', key, 'turn:' .. nesting)
if turn and tonumber(turn) > tonumber(ARGV[2]) then return 0 end
redis.call('HSET', key, 'turn:' .. nesting, ARGV[2], 'state:' .. nesting, ARGV[3], 'told:' .. nesting, ARGV[4])
redis.call('PEXPIRE', key, ARGV[5])
return 1
