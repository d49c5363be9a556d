-- check looks through a set for what is odd: agents and calls in a state that nothing will end, members without a
-- record. What stays odd for 3 s it mends; what is odd for 10 s all the same is stuck. Each node does it each 5 s.
-- ARGV  1 seed, 2 set: agents, calls, n:NODE or an:NODE, 3 cursor, 4 about how many members, 5 ms of silence that mean
--       death, 6 ms a lost place is kept
-- returns {cursor, mended, call backs that are taken past their time, state, how many are stuck in it, ...}
-- cost  O(members), about 10 us each
local set, dead, freed = ARGV[2], tonumber(ARGV[5]), {}

local function absent(node)
  local seen = redis.call('ZSCORE', K .. 'nodes', node)
  return not seen or now - seen > dead + 1000
end

-- Each kind of member: whether it is odd, and how it is mended.
local function agent_odd(a)
  if a.state == 'wrapup' then return tonumber(a.deadline) < now - 1000 end
  if a.state == 'idle' then return absent(a.node) end
  if a.state == 'paused' then return false end
  local c = redis.call('HMGET', K .. 'c:' .. a.call, 'token', 'state')
  return c[1] ~= a.token or c[2] ~= a.state
end

local function agent_mend(a)
  if a.state == 'wrapup' then
    agent_step(a, 'wrapped', {idle = now})
  elseif a.state == 'idle' then
    agent_step(a, 'nodelost', {reason = 'node_lost'})
  elseif redis.call('HGET', K .. 'c:' .. a.call, 'token') == a.token then
    agent_step(a, 'accept')
  else
    agent_lose(a, {queue = a.last or '', wrap = 60000})
  end
  if a.state == 'idle' then freed[#freed + 1] = a.id end
end

local function call_odd(c)
  if absent(c.node) then return true end
  if c.state == 'talk' then return c.apart ~= '1' and redis.call('HGET', K .. 'a:' .. c.agent, 'token') ~= c.token end
  local deadline = tonumber(redis.call('ZSCORE', K .. 'offers', c.id) or 0)
  if c.state == 'waiting' and redis.call('ZSCORE', K .. 'wait:' .. c.queue, c.id) then return false end
  return deadline < now - 1000
end

local function call_mend(c)
  if absent(c.node) then
    lose(c, tonumber(ARGV[6]), freed, now)
  elseif c.state == 'talk' then
    c.apart = '1'
    save('c:', c)
  elseif c.state == 'offered' then
    drop_offer(c, 'noanswer')
  else
    redis.call('ZADD', K .. 'wait:' .. c.queue, str(c.score), c.id)
    match_queue(c.queue)
  end
end

local whole = set == 'agents' or set == 'calls' -- of the others only the record is looked for
local agents = set == 'agents' or string.sub(set, 1, 3) == 'an:'
local kind = agents and 'a:' or 'c:'
local odd, mend = agents and agent_odd or call_odd, agents and agent_mend or call_mend
local page = redis.call('SSCAN', K .. set, ARGV[3], 'COUNT', ARGV[4])
local mended, stuck = 0, {}
for _, id in ipairs(page[2]) do
  local t, mark = load(kind, id), set .. ' ' .. id
  if t and not (whole and odd(t)) then
    redis.call('ZREM', K .. 'odd', mark)
  else
    redis.call('ZADD', K .. 'odd', 'NX', str(now), mark)
    local age = now - redis.call('ZSCORE', K .. 'odd', mark)
    local state = t and t.state or 'gone'
    if age > 10000 then stuck[state] = (stuck[state] or 0) + 1 end
    if age > 3000 then
      if t then mend(t) else redis.call('SREM', K .. set, id) end
      mended = mended + 1
    end
  end
end
match_freed(freed)
redis.call('ZREMRANGEBYSCORE', K .. 'odd', '-inf', str(now - 3600000))
local reply = {page[1], mended, redis.call('ZCOUNT', K .. 'cbl', '-inf', str(now - 10000))}
for state, n in pairs(stuck) do
  reply[#reply + 1] = state
  reply[#reply + 1] = n
end
return reply
