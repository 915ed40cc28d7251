-- Takes a lease that nobody holds.
-- KEYS    1: the lease key
-- ARGV    1: token of the holder, 2: time to live in milliseconds
-- returns 1 when it was taken, 0 when it is another's
-- PERSIST does nothing to a key that is not there, but after a write a Redis that is out of memory takes
-- the lease as well: only who holds it can make room.
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('PERSIST', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
