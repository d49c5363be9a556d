-- accept joins a call to the agent it is offered to. Idempotent by token.
-- ARGV  1 unused, 2 call, 3 token
-- returns the call's v, and the news of agents; 0 when the offer is not in force
-- cost  O(1), about 6 us
local c = load('c:', ARGV[2])
if not c or c.token ~= ARGV[3] then return {0} end
if c.state == 'talk' then return {tonumber(c.v)} end
local a = load('a:', c.agent)
if not a or a.token ~= c.token then return {0} end
if not entry_step(c, 'accept', {talk = now}, 'CONNECT', '', now - c.t0) then return {0} end
agent_step(a, 'accept', {misses = 0})
if (c.task or '') == '' then learn(c.queue, 10000, 'waits', 1, 'waited_ms', now - c.t0, 'abandons', 0) end
return with_news(c.v)
