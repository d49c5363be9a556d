-- settle is how a call back came out. Idempotent by call: only the call that holds the task, or held it last, is heard.
-- ARGV  1 unused, 2 task, 3 call, 4 result, 5 attempts after which it is closed
-- returns 1 when it was noted; 0 when it was before, or the task is closed
-- cost  O(1), about 15 us
local t, result = load('t:', ARGV[2]), ARGV[4]
local c = load('c:', ARGV[3])
if result == 'answered' and c and c.task == ARGV[2] and c.state == 'talk' then
  c.task, c.talk = '', now -- a talk like any other from here on
  save('c:', c)
end
if not t or t.holder ~= ARGV[3] then return 0 end
local fields = {result = result, holder = ''}
if result ~= 'agent_missed' then fields.attempts, fields.try = t.attempts + 1, now end
if result == 'answered' then
  fields.closed_by = t.by
  return answered(t.id, now, fields) and 1 or 0
end
local event = (fields.attempts or 0) >= tonumber(ARGV[5]) and 'unreached' or 'tried'
return task_step(t, event, fields) and 1 or 0
