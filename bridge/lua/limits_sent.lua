-- Notes that the message of a granted run is at the broker, which keeps it from now on.
-- KEYS    1: prefix of all keys
-- ARGV    1: member
-- returns 1, or 0 when the run is not granted, or no more
local run = KEYS[1] .. 'run:' .. ARGV[1]
if redis.call('HGET', run, 'state') ~= 'granted' then return 0 end
redis.call('HDEL', run, 'message')
return 1
