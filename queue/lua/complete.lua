-- complete ends a talk. A call that is gone already is complete.
-- ARGV  1 seed, 2 call, 3 token, 4 COMPLETEAGENT|COMPLETECALLER, 5 reason
-- returns 1, and the news of agents; 0 when the token is not the call's
-- cost  O(1), about 8 us
local c = load('c:', ARGV[2])
if not c then return {1} end
if c.token ~= ARGV[3] or c.state ~= 'talk' then return {0} end
finish(c, ARGV[4], ARGV[5])
return with_news(1)
