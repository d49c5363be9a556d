-- sync_agent tells Redis of an agent on this node, after a time without Redis. What the agent did in the
-- meantime, and what Redis has forgotten (its v is lower), holds, unless another node has the agent by now. Idempotent.
-- ARGV  1 seed, 2 agent (JSON; idle_ms and deadline_ms are ages, not times)
-- returns the agent's fields; {} when the agent is logged in elsewhere or logged out
-- cost  O(queues of the agent), about 25 us
local e = cjson.decode(ARGV[2])
local a = load('a:', e.id)
if a and a.node ~= e.node and redis.call('ZSCORE', K .. 'nodes', a.node) then return {} end
if not a and not e.changed and e.state == 'loggedout' then return {} end
local mine = e.changed or not a or e.v > tonumber(a.v) or a.reason == 'node_lost' or a.next == 'pause:node_lost'
local call = redis.call('HGET', K .. 'c:' .. e.call, 'token')
if a and not e.changed and e.token ~= '' and not e.own and call ~= e.token then mine = false end -- a call that ended
local held = a and a.token ~= '' and a.token ~= e.token and load('c:', a.call)
if held and held.token == a.token and held.node ~= e.node then
  if e.state == 'talk' and held.state == 'offered' then
    drop_offer(held, 'cancel')
    if held.state == 'waiting' then redis.call('ZADD', K .. 'offers', str(now), held.id) end
    a = load('a:', e.id)
  else
    mine = false -- another node's call has the agent
  end
end
if mine then
  hold()
  local free = not e.own and e.token ~= '' and redis.call('GET', K .. 'over:' .. e.token)
  if free then e.state, e.call, e.token, e.deadline_ms = 'wrapup', '', '', free - now end
  a = {id = e.id, state = e.state, since = now, idle = now - e.idle_ms, deadline = now + e.deadline_ms, reason = e.reason,
    call = e.call, token = e.token, queues = e.queues, ext = e.ext, node = e.node, misses = e.misses, next = e.next,
    last = e.last, v = math.max(a and a.v or 0, e.v)}
  redis.call('SADD', K .. 'an:' .. e.node, e.id)
  agent_put(a)
else
  redis.call('SADD', K .. 'an:' .. e.node, e.id)
  a.node = e.node
  if a.next == 'pause:node_lost' then a.next = '' end
  save('a:', a)
  if a.reason == 'node_lost' then agent_step(a, 'ready', {idle = now}) end
end
if a.state == 'loggedout' then return {} end
local flat = redis.call('HGETALL', K .. 'a:' .. e.id)
flat[#flat + 1] = 'id'
flat[#flat + 1] = e.id
return flat
