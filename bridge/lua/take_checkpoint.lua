-- Takes the checkpoint of a run over for an execution that begins: what earlier ones write is refused.
-- KEYS    1: what is kept of the run
-- ARGV    1: how often the run was replaced under its id, 2: time to live in milliseconds
-- returns {turn of this execution, state or nil, counts that were told or nil}
-- What is kept is read whatever happens: a Redis that is out of memory gives no turn, but what it has.
local call, key, nesting = redis.call, KEYS[1], tonumber(ARGV[1])
local kept = call('HMGET', key, 'turn:' .. nesting, 'state:' .. nesting, 'told:' .. nesting)
local turn = redis.pcall('HINCRBY', key, 'turn:' .. nesting, 1)
if type(turn) ~= 'number' then return { tonumber(kept[1] or '0'), kept[2], kept[3] } end
call('PEXPIRE', key, ARGV[2])
local past = nesting - 2  -- the one between may come again: its worker may have died before it acked
if past >= 0 then call('HDEL', key, 'turn:' .. past, 'state:' .. past, 'told:' .. past) end
return { turn, kept[2], kept[3] }
