-- sync_done ends a node's account of what it has: its other calls in Redis are lost (a process before this
-- one had them, and they are in the ledger), and callers and agents who may meet do.
-- ARGV  1 seed, 2 node, 3 ms a lost place is kept, 4 calls (JSON list), 5... queues
-- returns 1
-- cost  O(calls of the node)
local mine, freed = {}, {}
local seen = tonumber(redis.call('ZSCORE', K .. 'nodes', ARGV[2]) or now)
for _, id in ipairs(cjson.decode(ARGV[4])) do mine[id] = true end
for _, id in ipairs(redis.call('SMEMBERS', K .. 'n:' .. ARGV[2])) do
  local c = not mine[id] and load('c:', id)
  if c then lose(c, tonumber(ARGV[3]), freed, seen) end
  if not mine[id] then redis.call('SREM', K .. 'n:' .. ARGV[2], id) end
end
match_freed(freed)
redis.call('SETNX', K .. 'born', str(now))
beats(ARGV[2])
for i = 5, #ARGV do match_queue(ARGV[i]) end
return 1
