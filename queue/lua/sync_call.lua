-- sync_call tells Redis of one of this node's calls, after a time without Redis. The node's word on its own
-- call holds; the place it had is kept. Agents are told of first. Idempotent by token.
-- ARGV  1 seed, 2 entry (JSON) with state, agent, token, dropped (the last token given back), name, reason, window
-- returns {state, v, score, agent, token, extension, node of the phone}
-- cost  O(log waiting), about 25 us
local e = cjson.decode(ARGV[2])
local c = load('c:', e.id)
if not c then
  if e.state == 'gone' then return {'gone', '0', '0', '', '', '', ''} end
  c = new_entry(e)
  entry_step(c, 'enter', nil, 'ENTERQUEUE', 'sync')
end
-- An offer that Redis made and the node does not hold is void, unless the caller still waits for one and
-- the agent is still the offer's.
local held = {agent = c.agent, token = c.token}
local free = c.token ~= '' and redis.call('HGET', K .. 'a:' .. c.agent, 'token') ~= c.token
local void = c.token ~= '' and c.token ~= e.token and (e.state ~= 'waiting' or c.token == e.dropped or free)
if void then
  entry_step(c, 'void', {agent = '', token = '', ext = '', anode = ''}, 'RINGCANCELED', 'sync')
  redis.call('ZREM', K .. 'wait:' .. c.queue, c.id) -- or the agent might be given the same caller again
  free_agent(held, 'cancel')
end
if e.state == 'gone' then
  if c.state == 'talk' or (c.state == 'offered' and e.talked) then
    if c.state == 'offered' then entry_step(c, 'accept', {talk = now}, 'CONNECT', 'sync') end
    local a = load('a:', c.agent)
    if a and a.token == c.token then agent_step(a, 'accept') end
    finish(c, e.name, 'sync')
  else
    held = {agent = c.agent, token = c.token}
    keep_place(c, e.window)
    entry_step(c, 'leave', nil, e.name, 'sync', now - c.t0)
    free_agent(held, 'cancel')
  end
elseif e.state == 'offered' or e.state == 'talk' then
  local a = load('a:', e.agent)
  local taken = not a or a.token ~= e.token and a.state ~= 'idle'
  if c.state == 'waiting' and (e.state == 'talk' or not taken) then
    entry_step(c, 'offer', {agent = e.agent, token = e.token, ext = e.ext, anode = e.anode}, 'OFFER', 'sync')
    redis.call('ZADD', K .. 'offers', str(now + c.ring + 5000), c.id)
    if a and a.state == 'idle' then agent_step(a, 'offer', {call = c.id, token = e.token}) end
  end
  if e.state == 'talk' and c.state == 'offered' then
    entry_step(c, 'accept', {talk = now}, 'CONNECT', 'sync', now - c.t0)
    if a and a.token == c.token then agent_step(a, 'accept', {misses = 0}) end
  end
end
if void and c.state == 'waiting' then
  redis.call('ZADD', K .. 'wait:' .. c.queue, str(c.score), c.id)
  match_queue(c.queue)
  c = load('c:', c.id)
end
return {c.state, str(c.v), str(c.score), c.agent, c.token, c.ext, c.anode}
