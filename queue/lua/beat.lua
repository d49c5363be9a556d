-- beat is a node's heartbeat and its sweep: offers whose ring is 5 s over, wrap-ups that ended, calls that
-- overflow, and nodes that fell silent. Every node does it each second; it is idempotent.
-- ARGV  1 seed, 2 node, 3 ms of silence that mean death, 4 most of each kind, 5 ms a lost place is kept
-- returns 1; 0 when the node itself had been taken for dead, and must tell anew what it has
-- cost  O(due), about 5 us when nothing is
local node, dead, most, window = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('ZSCORE', K .. 'nodes', node)
redis.call('ZADD', K .. 'nodes', str(now), node)

local function due(key) return redis.call('ZRANGEBYSCORE', K .. key, '-inf', str(now), 'LIMIT', 0, most) end

for _, id in ipairs(due('offers')) do
  local c = load('c:', id)
  redis.call('ZREM', K .. 'offers', id)
  if c and c.state == 'offered' then
    drop_offer(c, 'noanswer')
  elseif c and c.state == 'waiting' then
    redis.call('ZADD', K .. 'wait:' .. c.queue, str(c.score), id)
    match_queue(c.queue)
  end
end
for _, id in ipairs(due('wrap')) do
  local a = load('a:', id)
  if a and agent_step(a, 'wrapped', {idle = now}) then match_agent(a) end
end
for _, id in ipairs(due('over')) do
  local c = load('c:', id)
  redis.call('ZREM', K .. 'over', id)
  if c and c.state == 'waiting' and redis.call('ZSCORE', K .. 'wait:' .. c.queue, id) then
    entry_step(c, 'overflow', nil, 'EXITWITHTIMEOUT', 'overflow', now - c.t0)
    redis.call('ZREM', K .. 'wait:' .. c.queue, id)
    entry_step(c, 'overflow', {queue = c.over}, 'ENTERQUEUE', 'overflow')
    match_queue(c.queue)
  end
end
local freed = {}
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', K .. 'nodes', '-inf', str(now - dead), 'LIMIT', 0, 10)) do
  for _, id in ipairs(redis.call('SRANDMEMBER', K .. 'n:' .. gone, most)) do
    local c = load('c:', id)
    redis.call('SREM', K .. 'n:' .. gone, id)
    if c then lose(c, window, freed) end
  end
  for _, id in ipairs(redis.call('SRANDMEMBER', K .. 'an:' .. gone, most)) do
    local a = load('a:', id)
    redis.call('SREM', K .. 'an:' .. gone, id)
    local busy = a and (a.state == 'offered' or a.state == 'talk')
    if a then agent_step(a, 'nodelost', busy and {next = 'pause:node_lost'} or {reason = 'node_lost'}) end
  end
  if redis.call('SCARD', K .. 'n:' .. gone) + redis.call('SCARD', K .. 'an:' .. gone) == 0 then
    redis.call('ZREM', K .. 'nodes', gone)
  end
end
match_freed(freed)
return known and 1 or 0
