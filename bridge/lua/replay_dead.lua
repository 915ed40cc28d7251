-- Appends dead entries to the outbox again and takes them off the dead; those that are gone are left out.
-- KEYS    1: stream of the dead, then for each id the stream of the partition to append to
-- ARGV    ids of dead entries
-- returns how many were appended
-- The id under which an entry lay first goes with it: it is what its age is judged by.
local replayed = 0
for place, id in ipairs(ARGV) do
  local found = redis.call('XRANGE', KEYS[1], id, id)[1]
  if found then
    local fields = {}
    for at = 1, #found[2], 2 do fields[found[2][at]] = found[2][at + 1] end
    redis.call('XADD', KEYS[place + 1], '*', 'e', fields['e'] or '', 'v', fields['entry'] or '')
    redis.call('XDEL', KEYS[1], id)
    replayed = replayed + 1
  end
end
return replayed
