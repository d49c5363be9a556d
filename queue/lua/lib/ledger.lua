-- The ledger of callers who are owed a call back: one task a number, from the first missed call to an answer.

local LOOK = 30000 -- ms after which a taken task is looked after
local ANSWERED = 50000 -- numbers whose last answer is remembered
local unnumbered = 0 -- callers whom nobody can call back, in this script

-- task_put writes a task with its indexes and tells of it whole, since nodes keep copies.
local function task_put(t, fields)
  redis.call('ZREM', K .. 'cb:' .. t.queue, t.id)
  merge(t, fields)
  local due = t.state == 'open' or t.state == 'taken'
  indexed(due, 'cb', t.score, t.id)
  indexed(due, 'cb:' .. t.queue, t.score, t.id)
  indexed(t.state == 'taken', 'cbl', now + LOOK, t.id)
  indexed(t.state == 'closed', 'cbx', t.closed, t.id)
  if t.state == 'none' then
    redis.call('DEL', K .. 't:' .. t.id)
  else
    save('t:', t)
  end
  local flat = {}
  for k, v in pairs(t) do flat[k] = str(v) end
  emit('ev', 'CALLBACK', 'body', cjson.encode(flat))
end

-- task_step takes a task through the table; false when the table has no such step. Its v is a time that only rises:
-- of two copies the one with the higher v is the later.
local function task_step(t, event, fields)
  local to = (TASK[event] or {})[t.state]
  if not to then return false end
  fields = fields or {}
  fields.state, fields.v = to, math.max(now, t.v + 1)
  if to == 'closed' then fields.closed, fields.ending = now, event end
  task_put(t, fields)
  return true
end

-- owe notes a caller who left without an agent at a time. A call is noted once, and not when its number was answered
-- after it (by another call: its own answer is at c.talk). The earliest place is kept.
local function owe(c, why, left)
  if c.redial == '' or (c.sealed or '') == '' then
    unnumbered = unnumbered + 1
    return
  end
  local answer = tonumber(redis.call('ZSCORE', K .. 'served', c.redial) or 0)
  if answer > left and answer ~= tonumber(c.talk or 0) then return end
  local t = load('t:', c.redial) or {id = c.redial, state = 'none', queue = c.queue, v = 0, calls = ''}
  if string.find(' ' .. t.calls .. ' ', ' ' .. c.id .. ' ', 1, true) then return end
  local place = tonumber(c.score)
  if place < now - 1e12 then place = tonumber(c.t0) end -- who was in danger stood before all
  local fields = {queue = c.queue, lang = c.lang, caller = c.caller, sealed = c.sealed, call = c.id, why = why, last = left}
  if t.state == 'open' or t.state == 'taken' then
    fields.score, fields.missed, fields.calls = math.min(t.score, place), t.missed + 1, t.calls .. ' ' .. c.id
    if #fields.calls > 300 then fields.calls = string.match(fields.calls, ' (.*)') end
  else
    merge(fields, {score = place, missed = 1, calls = c.id, attempts = 0, try = 0, result = '', by = '', holder = '',
      closed = 0, ending = '', closed_by = '', note = ''})
  end
  task_step(t, 'miss', fields)
end

-- unowe takes a call out of the ledger again that was only thought to be lost.
local function unowe(c)
  local t = c.redial ~= '' and load('t:', c.redial)
  if t and t.call == c.id and t.why == 'node_lost' and t.missed == '1' then task_step(t, 'recall') end
end

-- answered notes that a number has an agent: nobody needs to call it back for what it missed before.
local function answered(id, at, fields)
  if id == '' then return end
  local before = tonumber(redis.call('ZSCORE', K .. 'served', id) or 0)
  redis.call('ZADD', K .. 'served', str(math.max(at, before)), id)
  redis.call('ZREMRANGEBYRANK', K .. 'served', 0, -ANSWERED - 1)
  local t = load('t:', id)
  return t and tonumber(t.last) <= at and task_step(t, 'answered', fields)
end

-- task_hold gives a task to the call that pays it; task_release takes it back when that call is over. The holder
-- stays named, since the word on how it came out may follow.
local function task_hold(c)
  local t = load('t:', c.task)
  if t and t.holder == c.id and t.state == 'taken' then return true end
  return t and task_step(t, 'take', {by = c.agent, holder = c.id})
end

local function task_release(c)
  local t = load('t:', c.task)
  if t and t.holder == c.id then task_step(t, 'release') end
end
