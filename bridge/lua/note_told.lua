-- Notes how far a run with a checkpoint has told that it is; of an execution that was overtaken, nothing.
-- KEYS    1: what is kept of the run
-- ARGV    1: how often the run was replaced under its id, 2: turn of this execution, 3: the counts
-- returns nothing; a Redis that is out of memory refuses the event that this comes with, not this
if redis.call('HGET', KEYS[1], 'turn:' .. ARGV[1]) == ARGV[2] then
  redis.pcall('HSET', KEYS[1], 'told:' .. ARGV[1], ARGV[3])
end
