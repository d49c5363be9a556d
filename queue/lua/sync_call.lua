-- sync_call tells Redis of one of this node's calls, after a time without Redis or after Redis lost what it had. The
-- node's word on its own call holds; the place it had is kept. Agents are told of first. Idempotent by token.
-- ARGV  1 seed, 2 entry (JSON) with state, agent, token, dropped (the last token given back), name, left, talked, window
-- returns {state, v, score, agent, token, extension, node of the phone}
-- cost  O(log waiting), about 25 us
local e = cjson.decode(ARGV[2])
local c = load('c:', e.id)
local a, held, free -- the agent whom the node says the call has; holds the call already; may be given it

local function look()
  a = e.agent ~= '' and load('a:', e.agent)
  held = a and a.token ~= '' and a.token == e.token
  free = a and a.token == '' and AGENT.take[a.state] ~= nil
end

-- past notes a call that came and went without Redis.
local function past()
  local p = entry_of(e)
  p.agent, p.token = e.agent, e.token
  let_go(p, e.talked, now - e.left)
  if e.task ~= '' then return end
  if e.talked then
    answered(p.redial, now - e.left, {closed_by = e.agent})
  elseif e.name == 'ABANDON' then
    owe(p, 'abandon', now - e.left)
  end
end

-- reserve gives the call the agent whom the node says it has.
local function reserve(step)
  entry_step(c, step, {agent = e.agent, token = e.token, ext = e.ext, anode = e.anode}, 'OFFER', 'sync')
  redis.call('ZADD', K .. 'offers', str(now + c.ring + 5000), c.id)
  if free and e.state == 'offered' then agent_take(a, 'take', c.id, e.token) end
end

look()
if not c then
  if e.state == 'gone' then
    past()
    return {'gone', '0', '0', '', '', '', ''}
  end
  if e.task ~= '' and e.state == 'offered' and not held and not free then return {'gone', '0', '0', '', '', '', ''} end
  c = new_entry(e)
  hold()
  unowe(c)
  if e.task == '' then
    entry_step(c, 'enter', nil, 'ENTERQUEUE', 'sync')
  else
    reserve('take')
    task_hold(c)
  end
end
-- An offer that Redis made and the node does not hold is void, unless the caller still waits for one and
-- the agent is still the offer's.
local was = {agent = c.agent, token = c.token}
local loose = c.token ~= '' and redis.call('HGET', K .. 'a:' .. c.agent, 'token') ~= c.token
local void = c.token ~= '' and c.token ~= e.token and (e.state ~= 'waiting' or c.token == e.dropped or loose)
if void then
  entry_step(c, 'void', {agent = '', token = '', ext = '', anode = ''}, 'RINGCANCELED', 'sync')
  redis.call('ZREM', K .. 'wait:' .. c.queue, c.id) -- or the agent might be given the same caller again
  free_agent(was, 'cancel')
end
if e.state == 'gone' then
  if c.state == 'talk' or (c.state == 'offered' and e.talked) then
    if c.state == 'offered' then entry_step(c, 'accept', {talk = now}, 'CONNECT', 'sync') end
    finish(c, e.name, 'sync')
  else
    was = {agent = c.agent, token = c.token}
    if e.talked then past() elseif e.task == '' then keep_place(c, e.window) end
    c.left = now - e.left
    entry_step(c, 'leave', nil, e.name, 'sync', now - c.t0)
    free_agent(was, 'cancel')
  end
elseif e.state == 'offered' or e.state == 'talk' then
  look()
  if c.state == 'waiting' and (e.state == 'talk' or held or free and a.state == 'idle') then reserve('offer') end
  if e.state == 'talk' and c.state == 'offered' then entry_step(c, 'accept', {talk = now}, 'CONNECT', 'sync', now - c.t0) end
end
-- A talk goes on also when its agent has another call by now: in the books it is then apart from its agent, and ends
-- by its node's word alone.
look()
if c.state == 'talk' and a then
  if free then agent_take(a, 'take', c.id, c.token) end
  if free or held then
    agent_step(a, 'accept', {misses = 0})
    c.apart = ''
  else
    c.apart = '1'
  end
  save('c:', c)
end
if void and c.state == 'waiting' then
  redis.call('ZADD', K .. 'wait:' .. c.queue, str(c.score), c.id)
  match_queue(c.queue)
  c = load('c:', c.id)
end
return {c.state, str(c.v), str(c.score), c.agent, c.token, c.ext, c.anode}
