-- news is what the script did to agents, as the stream tells it; with_news answers the node that acted with it, so that
-- the node knows what came of its act before the act returns, even when Redis is away a moment later.
local news = {}

local function with_news(answer) return {answer, unpack(news)} end

-- agent_put writes an agent with its indexes and tells of it.
local function agent_put(a)
  a.v = (a.v or 0) + 1
  for q, level in string.gmatch(a.queues, '(%S+):(%d+)') do
    indexed(a.state == 'idle', 'idle:' .. q, level * 1e13 + a.idle, a.id)
    local on = (a.state == 'paused' or a.state == 'loggedout') and 'SREM' or 'SADD'
    redis.call(on, K .. 'on:' .. q, a.id)
  end
  indexed(a.state == 'wrapup', 'wrap', a.deadline, a.id)
  if a.state == 'loggedout' then
    redis.call('DEL', K .. 'a:' .. a.id)
    redis.call('SREM', K .. 'agents', a.id)
    redis.call('SREM', K .. 'an:' .. a.node, a.id)
  else
    save('a:', a)
    redis.call('SADD', K .. 'agents', a.id)
  end
  local told = {'agent', a.id, 'state', a.state, 'v', str(a.v), 'since', str(a.since), 'idle', str(a.idle),
    'deadline', str(a.deadline), 'reason', a.reason, 'call', a.call, 'token', a.token, 'queues', a.queues,
    'ext', a.ext, 'node', a.node, 'misses', str(a.misses), 'next', a.next, 'last', a.last or ''}
  emit('ev', 'AGENT', unpack(told))
  news[#news + 1] = told
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

-- settle writes into the ledger what a call's step means for it.
local function settle(c, event, name, reason)
  if event == 'accept' and (c.task or '') == '' then
    answered(c.redial, now, {closed_by = c.agent})
  elseif c.state == 'gone' and (c.task or '') ~= '' then
    task_release(c)
  elseif event == 'lost' or name == 'ABANDON' then
    owe(c, reason == 'sync' and 'abandon' or reason, c.left or now)
  end
end

-- entry_step takes a call through the table and tells of it under name; false when there is no such
-- step. The event names the agent whom the call leaves, or the one it comes to.
local function entry_step(c, event, fields, name, reason, ms)
  local to = (ENTRY[event] or {})[c.state]
  if not to then return false end
  local agent, token = c.agent, c.token
  merge(c, fields)
  if c.agent ~= '' then agent, token = c.agent, c.token end
  c.state, c.v, c.at = to, c.v + 1, now
  indexed(to == 'waiting', 'wait:' .. c.queue, c.score, c.id)
  if to ~= 'offered' then redis.call('ZREM', K .. 'offers', c.id) end
  if to == 'gone' then
    redis.call('DEL', K .. 'c:' .. c.id)
    redis.call('SREM', K .. 'n:' .. c.node, c.id)
    redis.call('SREM', K .. 'calls', c.id)
    redis.call('ZREM', K .. 'over', c.id)
  else
    save('c:', c)
  end
  emit('ev', name, 'call', c.id, 'queue', c.queue, 'node', c.node, 'state', to, 'v', str(c.v), 'score', str(c.score),
    'agent', agent, 'token', token, 'ext', c.ext or '', 'anode', c.anode or '', 'reason', reason or '', 'ms', str(ms or 0),
    'task', c.task or '', 'num', (c.sealed or '') ~= '' and '1' or '')
  settle(c, event, name, reason)
  return true
end
