-- nodes_beat notes what a node says of itself and lists all nodes; with the empty name it only lists.
-- KEYS  1 seen (zset: node by the ms it was last seen), 2 said (hash: node -> JSON)
-- ARGV  1 node or "", 2 JSON, 3 most nodes, 4 ms after which a silent node drops out
-- returns {now in ms, node, ms it was seen, JSON, node, ...}; error NODESFULL
-- cost  O(nodes), about 10 us with ten
local name = ARGV[1]
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[4]))) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('HDEL', KEYS[2], gone)
end
if name ~= '' then
  if not redis.call('ZSCORE', KEYS[1], name) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
    return redis.error_reply('NODESFULL there are ' .. ARGV[3] .. ' nodes')
  end
  redis.call('ZADD', KEYS[1], string.format('%.0f', now), name)
  redis.call('HSET', KEYS[2], name, ARGV[2])
end
local out = {string.format('%.0f', now)}
local seen = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #seen, 2 do
  out[#out + 1] = seen[i]
  out[#out + 1] = seen[i + 1]
  out[#out + 1] = redis.call('HGET', KEYS[2], seen[i]) or '{}'
end
return out
