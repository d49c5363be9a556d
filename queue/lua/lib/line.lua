-- agent_take gives an agent a call. Whom it takes out of a pause is paused again after it.
local function agent_take(a, step, call, token)
  local fields = {call = call, token = token}
  if a.state == 'paused' and a.reason ~= 'node_lost' then fields.next = 'pause:' .. a.reason end
  return agent_step(a, step, fields)
end

-- offer reserves an agent for a call. The claim is one step: the call leaves its queue, the agent every
-- idle set.
local function offer(c, a, step)
  local token = string.sub(redis.sha1hex(SEED .. c.id .. a.id), 1, 32)
  redis.call('ZADD', K .. 'offers', str(now + c.ring + 5000), c.id)
  entry_step(c, step, {agent = a.id, token = token, ext = a.ext, anode = a.node}, 'OFFER')
  agent_take(a, step, c.id, token)
end

-- hold lets no caller and agent meet for a while, since a node tells what Redis does not know and others are about to:
-- an agent whom Redis takes for idle may be in a talk. The beats match when it is over.
local function hold() redis.call('SET', K .. 'hold', '1', 'PX', 2000, 'NX') end

local function on_hold() return redis.call('EXISTS', K .. 'hold') == 1 end

-- match_queue offers the callers in front to the agents in front until one side runs out.
local function match_queue(q)
  if on_hold() then return end
  while true do
    local call = redis.call('ZRANGE', K .. 'wait:' .. q, 0, 0)[1]
    local agent = call and redis.call('ZRANGE', K .. 'idle:' .. q, 0, 0)[1]
    if not agent then return end
    offer(load('c:', call), load('a:', agent), 'offer')
  end
end

-- match_agent offers an idle agent the caller who stands foremost over all the agent's queues.
local function match_agent(a)
  if a.state ~= 'idle' or on_hold() then return end
  local best, score
  for q in string.gmatch(a.queues, '(%S+):%d+') do
    local head = redis.call('ZRANGE', K .. 'wait:' .. q, 0, 0, 'WITHSCORES')
    if head[1] and (not best or tonumber(head[2]) < score) then best, score = head[1], tonumber(head[2]) end
  end
  if best then offer(load('c:', best), a, 'offer') end
end

-- entry_of is a call as its node says it is.
local function entry_of(e)
  local score = now - e.waited - e.credit
  if e.front then score = score - 1e13 end
  if e.score ~= 0 then score = e.score end
  return {id = e.id, state = 'gone', v = e.v or 0, queue = e.queue, node = e.node, score = score, t0 = now - e.waited,
    agent = '', token = '', ext = '', anode = '', ring = e.ring, wrap = e.wrap, miss = e.miss, over = e.over_to,
    redial = e.redial, caller = e.caller, sealed = e.sealed, lang = e.lang, why = e.why,
    task = e.task, apart = '', talk = 0}
end

-- new_entry makes a call's record, with the place that its caller has or had.
local function new_entry(e)
  local c = entry_of(e)
  if c.redial ~= '' and c.task == '' then
    local key = K .. 'r:' .. c.queue .. ':' .. c.redial
    local old = redis.call('GET', key)
    if old then
      c.score = math.min(c.score, tonumber(old))
      redis.call('DEL', key)
    end
  end
  redis.call('SADD', K .. 'calls', c.id)
  redis.call('SADD', K .. 'n:' .. c.node, c.id)
  if e.over_ms > 0 then redis.call('ZADD', K .. 'over', str(now - e.waited + e.over_ms), c.id) end
  return c
end

-- keep_place lets a redial within ms regain the place in the queue.
local function keep_place(c, ms)
  if c.redial ~= '' and ms > 0 then
    redis.call('SET', K .. 'r:' .. c.queue .. ':' .. c.redial, str(c.score), 'PX', str(ms))
  end
end

-- free_agent ends a call's hold on its agent, if it has one.
local function free_agent(c, event, fields)
  local a = c.agent ~= '' and load('a:', c.agent)
  if not a or a.token ~= c.token then return end
  fields = fields or {}
  fields.call, fields.token = '', ''
  if agent_step(a, event, fields) then match_agent(a) end
end

-- REST is how long an agent gets no offer whose phone was found to be engaged, or out of reach for the first time.
local REST = 2000

-- engage keeps offers from an agent whose phone was found to be in another call, for REST: it is asked again then. A talk
-- of the queue that has lost its agent in the books, as after a failover, gets the agent back.
local function engage(was, holder)
  free_agent(was, 'engaged', {deadline = now + REST, last = ''})
  local c, a = load('c:', holder), load('a:', was.agent)
  if not c or c.state ~= 'talk' or c.agent ~= was.agent or not a or a.state ~= 'wrapup' then return end
  agent_take(a, 'take', c.id, c.token)
  agent_step(a, 'accept', {misses = 0})
  c.apart = ''
  save('c:', c)
end

-- drop_offer takes a call back to its old place. A cancelled call is parked for 5 s, outside the queue,
-- since its caller is leaving; should no leave come, the sweep puts it back. A call back ends instead: its
-- caller is not on the line.
local function drop_offer(c, why, holder)
  local was = {agent = c.agent, token = c.token}
  local name = why == 'cancel' and 'RINGCANCELED' or 'RINGNOANSWER'
  if (c.task or '') ~= '' then
    entry_step(c, 'leave', nil, name, why)
  else
    entry_step(c, 'decline', {agent = '', token = '', ext = '', anode = ''}, name, why)
  end
  if why == 'cancel' then
    if c.state == 'waiting' then
      redis.call('ZREM', K .. 'wait:' .. c.queue, c.id)
      redis.call('ZADD', K .. 'offers', str(now + 5000), c.id)
    end
    free_agent(was, 'cancel')
    return
  end
  if why == 'engaged' then
    engage(was, holder)
    match_queue(c.queue)
    return
  end
  local a = load('a:', was.agent)
  local misses = a and a.misses + 1 or 0
  if why == 'unreachable' and misses == 1 then -- as while another gateway stands still: the phone is tried once more
    free_agent(was, 'engaged', {misses = misses, deadline = now + REST, last = ''})
  elseif misses >= tonumber(c.miss) then
    free_agent(was, 'missout', {misses = 0, reason = a.next == 'pause:node_lost' and 'node_lost' or why})
  else
    free_agent(was, 'miss', {misses = misses, idle = now})
  end
  match_queue(c.queue)
end

-- wrap_up lets an agent write up the talk that ended at a time, or go on at once when there is nothing to. After the death
-- of the talk's node it lasts 10 s at least: the phone may hang in the dead call.
local function wrap_up(a, event, c, at)
  local ms = (c.task or '') == '' and tonumber(c.wrap) or 0
  if event == 'lost' then ms = math.max(ms, 10000) end
  agent_step(a, event, {call = '', token = '', deadline = at + ms, last = c.queue})
  return at + ms <= now and agent_step(a, 'wrapped', {idle = now})
end

-- let_go ends a call's hold on its agent, talked tells whether they talked. If the books do not have the agent in the call
-- it is noted for the agent's node, which tells of the call only later, after Redis lost all.
local function let_go(c, talked, at)
  local a = c.agent ~= '' and load('a:', c.agent)
  if not a or a.token ~= c.token then
    local till = talked and (c.task or '') == '' and at + c.wrap or at
    if c.token ~= '' then redis.call('SET', K .. 'over:' .. c.token, str(till), 'PX', 600000) end
  elseif not talked then
    free_agent(c, 'cancel')
  else
    agent_step(a, 'accept')
    if wrap_up(a, 'complete', c, at) then match_agent(a) end
  end
end

-- finish ends a talk, and its agent goes to wrap-up.
local function finish(c, name, reason)
  entry_step(c, 'complete', nil, name, reason, now - c.talk)
  if (c.task or '') == '' then learn(c.queue, 200, 'handled', 1, 'handled_ms', now - c.talk + c.wrap) end
  let_go(c, true, now)
end

-- agent_lose frees an agent whose call is lost: idle when the phone rang, in wrap-up after a talk, since there is a case
-- to write up.
local function agent_lose(a, c)
  if a.state == 'talk' then return wrap_up(a, 'lost', c, now) end
  return agent_step(a, 'lost', {idle = now, call = '', token = ''})
end

-- lose ends a call whose node is gone, last seen at left; its caller is in the ledger, and may regain the place.
-- Its agent is free at once. Who is idle is put on the list of those to match when all of the node's calls are out of the queues.
local function lose(c, window, freed, left)
  if (c.task or '') == '' then keep_place(c, window) end
  local talked = c.state == 'talk'
  local a = c.agent ~= '' and load('a:', c.agent)
  c.left = left
  entry_step(c, 'lost', nil, talked and 'COMPLETECALLER' or 'ABANDON', 'node_lost', now - c.t0)
  if not a or a.token ~= c.token then return end
  agent_lose(a, c)
  if a.state == 'idle' then freed[#freed + 1] = a.id end
end

-- match_freed matches the agents that lost their calls, as far as they are still idle.
local function match_freed(freed)
  for _, id in ipairs(freed) do
    local a = load('a:', id)
    if a then match_agent(a) end
  end
end
