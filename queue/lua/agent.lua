-- agent is what agents do: login, logout, pause, ready, wrapped. A pause or log-out in mid-call waits for
-- the call's end; ready takes it back. A log-in anew moves the agent to the new phone, in mid-call too.
-- ARGV  1 seed, 2 agent, 3 event, 4 reason, 5 (login) node of the phone, 6 extension, 7 queues "name:level ...",
--       8 the node that asks
-- returns the state, and the news of agents; "" when the agent's state has no such step; "dead" when the phone's node is
-- not there
-- cost  O(queues of the agent), about 25 us
local id, event, reason = ARGV[2], ARGV[3], ARGV[4]
local a = load('a:', id) or {id = id, state = 'loggedout', since = now, idle = now, deadline = 0, reason = '', call = '',
  token = '', queues = '', ext = '', node = '', misses = 0, next = '', v = now} -- later than in an earlier shift
local busy = a.state == 'offered' or a.state == 'talk'
local fields = {}
if event == 'login' then
  if ARGV[5] ~= ARGV[8] and not redis.call('ZSCORE', K .. 'nodes', ARGV[5]) then return {'dead'} end
  for q in string.gmatch(a.queues, '(%S+):%d+') do
    redis.call('ZREM', K .. 'idle:' .. q, id)
    redis.call('SREM', K .. 'on:' .. q, id)
  end
  redis.call('SREM', K .. 'an:' .. a.node, id)
  redis.call('SADD', K .. 'an:' .. ARGV[5], id)
  fields = {node = ARGV[5], ext = ARGV[6], queues = ARGV[7]}
  if a.next == 'pause:node_lost' then fields.next = '' end
  if a.state == 'paused' and a.reason == 'node_lost' then event, fields.idle = 'ready', now end
elseif event == 'ready' then
  fields = {next = '', misses = 0}
  if a.state ~= 'idle' and not busy then fields.idle = now end
elseif event == 'wrapped' then
  fields = {idle = now}
elseif busy then
  fields = {next = event == 'pause' and 'pause:' .. reason or 'logout'}
else
  fields = {reason = reason}
end
if not agent_step(a, event, fields) then return {''} end
match_agent(a)
return with_news(a.state)
