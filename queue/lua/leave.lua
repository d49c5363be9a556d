-- leave takes a waiting or offered call out; an agent being rung is idle again at the old idle-since. The
-- place is kept for a redial when the caller abandoned. A call that is gone already has left.
-- ARGV  1 seed, 2 call, 3 event, 4 reason, 5 ms that the place is kept, 0 for not
-- returns 1, and the news of agents; 0 when the call is in talk
-- cost  O(log waiting), about 10 us
local c = load('c:', ARGV[2])
if not c then return {1} end
local held = {agent = c.agent, token = c.token}
if not entry_step(c, 'leave', nil, ARGV[3], ARGV[4], now - c.t0) then return {0} end
if (c.task or '') == '' then
  keep_place(c, tonumber(ARGV[5]))
  learn(c.queue, 10000, 'waits', 1, 'waited_ms', now - c.t0, 'abandons', ARGV[3] == 'ABANDON' and 1 or 0)
end
free_agent(held, 'cancel')
return with_news(1)
