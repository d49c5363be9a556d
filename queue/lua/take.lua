-- take gives a task of the ledger and an agent to the call that pays it. Idempotent by call.
-- ARGV  1 seed, 2 entry (JSON) with task and agent
-- returns {v, score, token, extension, node of the phone}; {what forbids it: none, taken, busy}
-- cost  O(queues of the agent), about 35 us
local e = cjson.decode(ARGV[2])
local c = load('c:', e.id)
if not c or c.task ~= e.task then
  local t = load('t:', e.task)
  if not t or t.state == 'closed' then return {'none'} end
  local holder = t.state == 'taken' and load('c:', t.holder)
  if holder and holder.task == t.id then return {'taken'} end
  local a = load('a:', e.agent)
  if not a or not AGENT.take[a.state] or not redis.call('ZSCORE', K .. 'nodes', a.node) then return {'busy'} end
  if t.state == 'taken' then task_step(t, 'release') end
  e.queue, e.redial, e.caller, e.sealed, e.lang = t.queue, t.id, t.caller, t.sealed, t.lang
  e.score, e.waited = tonumber(t.score), now - t.score
  c = new_entry(e)
  offer(c, a, 'take')
  task_hold(c)
end
return {str(c.v), str(c.score), c.token, c.ext, c.anode}
