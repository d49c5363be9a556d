-- line is a queue's order and what its wait estimate needs.
-- ARGV  1 unused, 2 queue
-- returns {calls in order, agents serving, {handled, handled_ms, abandons, waited_ms}, ms that the first has waited}
-- cost  O(waiting), about 0.2 ms at 2,000
local q = ARGV[2]
local order = redis.call('ZRANGE', K .. 'wait:' .. q, 0, -1)
local head = 0
if order[1] then head = now - redis.call('HGET', K .. 'c:' .. order[1], 't0') end
local st = redis.call('HMGET', K .. 'st:' .. q, 'handled', 'handled_ms', 'abandons', 'waited_ms')
for i = 1, 4 do st[i] = tonumber(st[i] or 0) end
return {order, redis.call('SCARD', K .. 'on:' .. q), st, head}
