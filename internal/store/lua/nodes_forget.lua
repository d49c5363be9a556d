-- nodes_forget takes a node off the list, unless it lives.
-- KEYS  1 seen, 2 said
-- ARGV  1 node, 2 ms within which a node that was seen lives
-- returns 1 forgotten, 0 it lives, -1 there is none of that name
-- cost  O(log nodes)
local seen = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not seen then return -1 end
if tonumber(seen) > now - ARGV[2] then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return 1
