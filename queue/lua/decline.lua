-- decline gives an offer back: the call to its old place, the agent to idle or to a pause.
-- ARGV  1 seed, 2 call, 3 token, 4 noanswer|reject|unreachable|cancel|engaged, 5 (engaged) the call that has the phone, or ""
-- returns the call's v, and the news of agents; 0 when the offer is not in force
-- cost  O(log waiting + queues of the agent), about 30 us
local c = load('c:', ARGV[2])
if not c or c.token ~= ARGV[3] or c.state ~= 'offered' then return {0} end
drop_offer(c, ARGV[4], ARGV[5])
return with_news(c.v)
