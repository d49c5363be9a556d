-- snapshot is everything for a console, at one moment.
-- ARGV  1 unused, 2 most calls of a queue, 3... queues
-- returns {now, {agent fields ..., "stuck", 0|1}, {waiting, oldest ms, {call fields}} a queue}
-- cost  O(agents + shown calls), about 1 ms for 1,000 agents
local agents = {}
for _, id in ipairs(redis.call('SMEMBERS', K .. 'agents')) do
  local a = redis.call('HGETALL', K .. 'a:' .. id)
  local t = load('a:', id)
  local stuck = 0
  if t and (t.state == 'offered' or t.state == 'talk') then
    local c = load('c:', t.call)
    if not c or c.token ~= t.token or c.state ~= t.state then stuck = 1 end
    if t.state == 'offered' and c and now > t.since + c.ring + 10000 then stuck = 1 end
  elseif t and t.state == 'wrapup' and now > t.deadline + 10000 then
    stuck = 1
  end
  a[#a + 1] = 'id'
  a[#a + 1] = id
  a[#a + 1] = 'stuck'
  a[#a + 1] = str(stuck)
  agents[#agents + 1] = a
end
local queues = {}
for i = 3, #ARGV do
  local key, calls, oldest = K .. 'wait:' .. ARGV[i], {}, 0
  for _, id in ipairs(redis.call('ZRANGE', key, 0, ARGV[2] - 1)) do
    local c = redis.call('HGETALL', K .. 'c:' .. id)
    c[#c + 1] = 'id'
    c[#c + 1] = id
    calls[#calls + 1] = c
    oldest = math.max(oldest, now - redis.call('HGET', K .. 'c:' .. id, 't0'))
  end
  queues[#queues + 1] = {redis.call('ZCARD', key), oldest, calls}
end
return {now, agents, queues}
