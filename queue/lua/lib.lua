-- What every script begins with. AGENT and ENTRY, the transition tables, are put before it: they are
-- written from the tables in Go, so that both sides compare and set the same states.
--
-- KEYS[1] is the prefix of all keys. It carries the hash tag, so every key is in one slot. Times are
-- milliseconds of Redis' own clock, the only one in a score or a deadline.
--
--   wait:Q   zset  waiting calls; score = arrival - credit, the lowest is next
--   idle:Q   zset  idle agents; score = level * 1e13 + idle since, the lowest is next
--   on:Q     set   agents of the queue who are logged in and not paused
--   c:ID     hash  a call: state queue score t0 node agent token v and what its queue set
--   a:ID     hash  an agent: state since idle reason call token queues ext node misses next v
--   agents   set   who is logged in
--   offers   zset  calls that are offered (or parked), by the deadline
--   wrap     zset  agents in wrap-up, by the deadline
--   over     zset  calls that overflow to another queue, by the time
--   nodes    zset  nodes by their last heartbeat
--   n:NODE   set   a node's calls         an:NODE set  a node's agents
--   r:Q:KEY  the place of a caller who left, for a redial; the only key that expires
--   st:Q     hash  what the wait estimate learns from
--   ev       stream of all that happened, written in the script that did it
local K = KEYS[1] .. ':'
local T = redis.call('TIME')
local now = tonumber(T[1]) * 1000 + math.floor(tonumber(T[2]) / 1000)
local SEED = ARGV[1]

local function str(v)
  if type(v) == 'number' then return string.format('%.0f', v) end
  return tostring(v)
end

local function load(kind, id)
  local flat = redis.call('HGETALL', K .. kind .. id)
  if #flat == 0 then return nil end
  local t = {id = id}
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

local function save(kind, t)
  local flat = {}
  for k, v in pairs(t) do
    if k ~= 'id' then
      flat[#flat + 1] = k
      flat[#flat + 1] = str(v)
    end
  end
  redis.call('HSET', K .. kind .. t.id, unpack(flat))
end

local function merge(t, fields)
  for k, v in pairs(fields or {}) do t[k] = v end
end

local function emit(...)
  redis.call('XADD', K .. 'ev', 'MAXLEN', '~', 100000, '*', ...)
end

-- learn adds to what the wait estimate learns from, field by field. When the first, a count, reaches most,
-- all are halved: old experience fades.
local function learn(queue, most, ...)
  local key, pairs_ = K .. 'st:' .. queue, {...}
  for i = 1, #pairs_, 2 do redis.call('HINCRBY', key, pairs_[i], str(pairs_[i + 1])) end
  if tonumber(redis.call('HGET', key, pairs_[1])) < most then return end
  for i = 1, #pairs_, 2 do
    redis.call('HSET', key, pairs_[i], str(math.floor(redis.call('HGET', key, pairs_[i]) / 2)))
  end
end

-- agent_put writes an agent with its indexes and tells of it.
local function agent_put(a)
  a.v = (a.v or 0) + 1
  for q, level in string.gmatch(a.queues, '(%S+):(%d+)') do
    if a.state == 'idle' then
      redis.call('ZADD', K .. 'idle:' .. q, str(level * 1e13 + a.idle), a.id)
    else
      redis.call('ZREM', K .. 'idle:' .. q, a.id)
    end
    local on = (a.state == 'paused' or a.state == 'loggedout') and 'SREM' or 'SADD'
    redis.call(on, K .. 'on:' .. q, a.id)
  end
  if a.state == 'wrapup' then
    redis.call('ZADD', K .. 'wrap', str(a.deadline), a.id)
  else
    redis.call('ZREM', K .. 'wrap', a.id)
  end
  if a.state == 'loggedout' then
    redis.call('DEL', K .. 'a:' .. a.id)
    redis.call('SREM', K .. 'agents', a.id)
    redis.call('SREM', K .. 'an:' .. a.node, a.id)
  else
    save('a:', a)
    redis.call('SADD', K .. 'agents', a.id)
  end
  emit('ev', 'AGENT', 'agent', a.id, 'state', a.state, 'v', str(a.v), 'since', str(a.since), 'idle', str(a.idle),
    'deadline', str(a.deadline), 'reason', a.reason, 'call', a.call, 'token', a.token, 'queues', a.queues,
    'ext', a.ext, 'node', a.node, 'misses', str(a.misses), 'next', a.next)
end

-- agent_step takes an agent through the table; false when the table has no such step. Whoever comes
-- to idle with a wish that waited (a pause or log-out asked for in mid-call) has it granted.
local function agent_step(a, event, fields)
  local to = (AGENT[event] or {})[a.state]
  if not to then return false end
  merge(a, fields)
  if to == 'idle' and a.next == 'logout' then
    to = AGENT.logout.idle
  elseif to == 'idle' and a.next ~= '' then
    to, a.reason = AGENT.pause.idle, string.sub(a.next, 7)
  end
  if to == 'idle' or to == 'paused' or to == 'loggedout' then a.next = '' end
  if to == 'idle' then a.reason = '' end
  if to ~= a.state then a.since = now end
  a.state = to
  agent_put(a)
  return true
end

-- entry_step takes a call through the table and tells of it under name; false when there is no such
-- step. The event names the agent whom the call leaves, or the one it comes to.
local function entry_step(c, event, fields, name, reason, ms)
  local to = (ENTRY[event] or {})[c.state]
  if not to then return false end
  local agent, token = c.agent, c.token
  merge(c, fields)
  if c.agent ~= '' then agent, token = c.agent, c.token end
  c.state, c.v = to, c.v + 1
  local wait = K .. 'wait:' .. c.queue
  if to == 'waiting' then
    redis.call('ZADD', wait, str(c.score), c.id)
  else
    redis.call('ZREM', wait, c.id)
  end
  if to ~= 'offered' then redis.call('ZREM', K .. 'offers', c.id) end
  if to == 'gone' then
    redis.call('DEL', K .. 'c:' .. c.id)
    redis.call('SREM', K .. 'n:' .. c.node, c.id)
    redis.call('ZREM', K .. 'over', c.id)
  else
    save('c:', c)
  end
  emit('ev', name, 'call', c.id, 'queue', c.queue, 'node', c.node, 'state', to, 'v', str(c.v), 'score', str(c.score),
    'agent', agent, 'token', token, 'ext', c.ext or '', 'anode', c.anode or '', 'reason', reason or '', 'ms', str(ms or 0))
  return true
end

-- offer reserves an agent for a call. The claim is one step: the call leaves its queue, the agent every
-- idle set.
local function offer(c, a)
  local token = string.sub(redis.sha1hex(SEED .. c.id .. a.id), 1, 32)
  redis.call('ZADD', K .. 'offers', str(now + c.ring + 5000), c.id)
  entry_step(c, 'offer', {agent = a.id, token = token, ext = a.ext, anode = a.node}, 'OFFER')
  agent_step(a, 'offer', {call = c.id, token = token})
end

-- match_queue offers the callers in front to the agents in front until one side runs out.
local function match_queue(q)
  while true do
    local call = redis.call('ZRANGE', K .. 'wait:' .. q, 0, 0)[1]
    local agent = call and redis.call('ZRANGE', K .. 'idle:' .. q, 0, 0)[1]
    if not agent then return end
    offer(load('c:', call), load('a:', agent))
  end
end

-- match_agent offers an idle agent the caller who stands foremost over all the agent's queues.
local function match_agent(a)
  if a.state ~= 'idle' then return end
  local best, score
  for q in string.gmatch(a.queues, '(%S+):%d+') do
    local head = redis.call('ZRANGE', K .. 'wait:' .. q, 0, 0, 'WITHSCORES')
    if head[1] and (not best or tonumber(head[2]) < score) then best, score = head[1], tonumber(head[2]) end
  end
  if best then offer(load('c:', best), a) end
end

-- new_entry makes a call's record of what its node says, with the place that it has or had.
local function new_entry(e)
  local score = now - e.waited - e.credit
  if e.front then score = score - 1e13 end
  if e.score ~= 0 then score = e.score end
  if e.redial ~= '' then
    local key = K .. 'r:' .. e.queue .. ':' .. e.redial
    local old = redis.call('GET', key)
    if old then
      score = math.min(score, tonumber(old))
      redis.call('DEL', key)
    end
  end
  redis.call('SADD', K .. 'n:' .. e.node, e.id)
  if e.over_ms > 0 then redis.call('ZADD', K .. 'over', str(now - e.waited + e.over_ms), e.id) end
  return {id = e.id, state = 'gone', v = e.v or 0, queue = e.queue, node = e.node, score = score, t0 = now - e.waited,
    agent = '', token = '', ext = '', anode = '', ring = e.ring, wrap = e.wrap, miss = e.miss, over = e.over_to,
    redial = e.redial, caller = e.caller, lang = e.lang, why = e.why, talk = 0}
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

-- drop_offer takes a call back to its old place. A cancelled call is parked for 5 s, outside the queue,
-- since its caller is leaving; should no leave come, the sweep puts it back.
local function drop_offer(c, why)
  local was = {agent = c.agent, token = c.token}
  local name = why == 'cancel' and 'RINGCANCELED' or 'RINGNOANSWER'
  entry_step(c, 'decline', {agent = '', token = '', ext = '', anode = ''}, name, why)
  if why == 'cancel' then
    redis.call('ZREM', K .. 'wait:' .. c.queue, c.id)
    redis.call('ZADD', K .. 'offers', str(now + 5000), c.id)
    free_agent(was, 'cancel')
    return
  end
  local a = load('a:', was.agent)
  local misses = a and a.misses + 1 or 0
  if misses >= tonumber(c.miss) then
    free_agent(was, 'missout', {misses = 0, reason = why})
  else
    free_agent(was, 'miss', {misses = misses, idle = now})
  end
  match_queue(c.queue)
end

-- finish ends a talk: the agent goes to wrap-up, or past it when the queue has none.
local function finish(c, name, reason)
  local a = c.agent ~= '' and load('a:', c.agent)
  entry_step(c, 'complete', nil, name, reason, now - c.talk)
  learn(c.queue, 200, 'handled', 1, 'handled_ms', now - c.talk + c.wrap)
  if not a or a.token ~= c.token then return end
  agent_step(a, 'complete', {call = '', token = '', deadline = now + c.wrap})
  if tonumber(c.wrap) == 0 and agent_step(a, 'wrapped', {idle = now}) then match_agent(a) end
end

-- lose ends a call whose node is gone; its caller may regain the place. Its agent is free at once, and is put on
-- the list of those to match when all of the node's calls are out of the queues.
local function lose(c, window, freed)
  keep_place(c, window)
  local name = c.state == 'talk' and 'COMPLETECALLER' or 'ABANDON'
  local a = c.agent ~= '' and load('a:', c.agent)
  local token = c.token
  entry_step(c, 'lost', nil, name, 'node_lost', now - c.t0)
  if a and a.token == token and agent_step(a, 'lost', {idle = now, call = '', token = ''}) then
    freed[#freed + 1] = a.id
  end
end

-- match_freed matches the agents that lost their calls, as far as they are still idle.
local function match_freed(freed)
  for _, id in ipairs(freed) do
    local a = load('a:', id)
    if a then match_agent(a) end
  end
end
