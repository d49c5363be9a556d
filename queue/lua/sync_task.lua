-- sync_task gives Redis a node's copy of a task, where it has none or an older one. A copy that says what Redis had
-- forgotten because it was closed long ago is not taken: it counts when it is younger than closed tasks are kept, or
-- older than this Redis, and Redis is not yet as old as that. Idempotent.
-- ARGV  1 unused, 2 task (JSON), 3 ms that a closed task is kept
-- returns 1 when it was taken, else 0
-- cost  O(1), about 15 us
local keep = tonumber(ARGV[3])
local copy = cjson.decode(ARGV[2])
local t = load('t:', copy.id)
local v = tonumber(copy.v)
redis.call('SETNX', K .. 'born', str(now))
local born = tonumber(redis.call('GET', K .. 'born'))
if t and tonumber(t.v) >= v or not t and copy.state == 'none' then return 0 end
if not t and not (now - v < keep or v < born and now - born < keep) then return 0 end
if copy.state == 'taken' and redis.call('HGET', K .. 'c:' .. copy.holder, 'task') ~= copy.id then copy.state = 'open' end
task_put(t or copy, copy)
return 1
