-- beat is a node's heartbeat and its sweep: offers whose ring is 5 s over, wrap-ups that ended, calls that
-- overflow, nodes that fell silent, and the ledger's bounds. Every node does it twice a second; it is idempotent.
-- ARGV  1 seed, 2 node, 3 ms of silence that mean death, 4 most of each kind, 5 ms a lost place is kept, 6 most open
--       tasks, 7 ms that a closed one is kept, 8... queues
-- returns {1, or 0 when the node itself had been taken for dead and must tell anew what it has; 1 when more is due;
--         then how many it ended: offers, wrap-ups, nodes, calls and agents of theirs, call backs whose call vanished;
--         callers without a number, tasks dropped}
-- cost  O(due), about 5 us when nothing is
local node, dead, most, window = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local known = redis.call('ZSCORE', K .. 'nodes', node)
beats(node)
local ended = {offer = 0, wrapup = 0, node = 0, call = 0, agent = 0, callback = 0, dropped = 0}
local more, freed = 0, {}

local function count(kind) ended[kind] = ended[kind] + 1 end

-- strand keeps calls from an agent whose phone's node died. A pause or log-out that somebody asked for is not the
-- node's to end when it is back: it stays, or is granted where the agent has no call. Whose phone was out of
-- reach before the node was known to be dead is its victim too.
local function strand(a)
  if a.state == 'wrapup' and a.next ~= '' then
    agent_step(a, 'wrapped', {idle = now})
  elseif a.state == 'offered' or a.state == 'talk' then
    agent_step(a, 'nodelost', {next = a.next ~= '' and a.next or 'pause:node_lost'})
  elseif a.state ~= 'paused' then
    agent_step(a, 'nodelost', {reason = 'node_lost'})
  elseif a.reason == 'unreachable' then
    a.reason = 'node_lost'
    agent_put(a)
  end
end

local function due(key, before)
  local ids = redis.call('ZRANGEBYSCORE', K .. key, '-inf', str(before or now), 'LIMIT', 0, most)
  if #ids == most then more = 1 end
  return ids
end

for _, id in ipairs(due('offers')) do
  local c = load('c:', id)
  redis.call('ZREM', K .. 'offers', id)
  if c and c.state == 'offered' then
    count('offer')
    drop_offer(c, 'noanswer')
  elseif c and c.state == 'waiting' then
    redis.call('ZADD', K .. 'wait:' .. c.queue, str(c.score), id)
    match_queue(c.queue)
  end
end
for _, id in ipairs(due('wrap')) do
  local a = load('a:', id)
  if a and agent_step(a, 'wrapped', {idle = now}) then
    count('wrapup')
    match_agent(a)
  end
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
for _, gone in ipairs(due('nodes', now - dead)) do
  local seen = tonumber(redis.call('ZSCORE', K .. 'nodes', gone))
  for _, id in ipairs(redis.call('SRANDMEMBER', K .. 'n:' .. gone, most)) do
    local c = load('c:', id)
    redis.call('SREM', K .. 'n:' .. gone, id)
    if c then
      count('call')
      lose(c, window, freed, seen)
    end
  end
  for _, id in ipairs(redis.call('SRANDMEMBER', K .. 'an:' .. gone, most)) do
    local a = load('a:', id)
    redis.call('SREM', K .. 'an:' .. gone, id)
    if a then
      count('agent')
      strand(a)
    end
  end
  if redis.call('SCARD', K .. 'n:' .. gone) + redis.call('SCARD', K .. 'an:' .. gone) == 0 then
    count('node')
    redis.call('ZREM', K .. 'nodes', gone)
  else
    more = 1
  end
end
match_freed(freed)
for i = 8, #ARGV do match_queue(ARGV[i]) end
for _, id in ipairs(due('cbl')) do
  local t = load('t:', id)
  local c = t and load('c:', t.holder)
  if c and c.task == id then
    redis.call('ZADD', K .. 'cbl', str(now + LOOK), id)
  elseif not t or not task_step(t, 'release') then
    redis.call('ZREM', K .. 'cbl', id)
  else
    count('callback')
  end
end
local over = math.min(redis.call('ZCARD', K .. 'cb') - ARGV[6], most)
for _, id in ipairs(over > 0 and redis.call('ZRANGE', K .. 'cb', 0, over - 1) or {}) do
  local t = load('t:', id)
  if t and task_step(t, 'dropped') then count('dropped') end
end
local old = due('cbx', now - ARGV[7])
local many = math.min(redis.call('ZCARD', K .. 'cbx') - ARGV[6], most)
if #old == 0 and many > 0 then old = redis.call('ZRANGE', K .. 'cbx', 0, many - 1) end
for _, id in ipairs(old) do
  local t = load('t:', id)
  if not t or not task_step(t, 'expired') then redis.call('ZREM', K .. 'cbx', id) end
end
redis.call('ZREMRANGEBYSCORE', K .. 'served', '-inf', str(now - ARGV[7]))
return {known and 1 or 0, more, ended.offer, ended.wrapup, ended.node, ended.call, ended.agent, ended.callback,
  unnumbered, ended.dropped}
