-- What every script begins with: this file, then ledger.lua, states.lua and line.lua. AGENT, ENTRY and TASK, the
-- transition tables, are put before it: they are written from the tables in Go, so that both sides compare and
-- set the same states.
--
-- KEYS[1] is the prefix of all keys. It carries the hash tag, so every key is in one slot. Times are
-- milliseconds of Redis' own clock, the only one in a score or a deadline.
--
--   wait:Q   zset  waiting calls; score = arrival - credit, the lowest is next
--   idle:Q   zset  idle agents; score = level * 1e13 + idle since, the lowest is next
--   on:Q     set   agents of the queue who are logged in and not paused
--   c:ID     hash  a call: state at queue score t0 node agent token v, what its queue set, the sealed number;
--                  task while it is a call back whose caller has not answered
--   calls    set   the calls
--   a:ID     hash  an agent: state since idle reason call token queues ext node misses next last v
--   agents   set   who is logged in
--   offers   zset  calls that are offered (or parked), by the deadline
--   wrap     zset  agents in wrap-up, by the deadline
--   over     zset  calls that overflow to another queue, by the time
--   nodes    zset  nodes by their last heartbeat
--   n:NODE   set   a node's calls         an:NODE set  a node's agents
--   t:ID     hash  a caller who is owed a call back; ID is the number's pseudonym
--   cb, cb:Q zset  those tasks that are not closed, in all and a queue; score = the old place
--   cbx      zset  closed tasks, by the time
--   cbl      zset  tasks that an agent has taken, by the time to look after the call
--   served   zset  numbers that were answered, by the time
--   hold     while it is there nobody is matched; it expires
--   over:T   when the agent of a call is free again, or was, whose node does not know that it is over; by its token; it expires
--   born     the time at which Redis was first told of anything: what is not here may be lost, or be over
--   r:Q:KEY  the place of a caller who left, for a redial; it expires
--   st:Q     hash  what the wait estimate learns from
--   ev       stream of all that happened, written in the script that did it
local K = KEYS[1] .. ':'
local T = redis.call('TIME')
local now = tonumber(T[1]) * 1000 + math.floor(tonumber(T[2]) / 1000)
local SEED = ARGV[1]

-- GRACE is the silence of all nodes at once that can only be Redis' own: several beats.
local GRACE = 1500

local function str(v)
  if type(v) == 'number' then return string.format('%.0f', v) end
  return tostring(v)
end

local function load(kind, id)
  local flat = redis.call('HGETALL', K .. kind .. id)
  if #flat == 0 then return nil end
  local t = {id = id}
  for i = 1, #flat, 2 do t[flat[i]] = flat[i + 1] end
  return t
end

local function save(kind, t)
  local flat = {}
  for k, v in pairs(t) do
    if k ~= 'id' then
      flat[#flat + 1] = k
      flat[#flat + 1] = str(v)
    end
  end
  redis.call('HSET', K .. kind .. t.id, unpack(flat))
end

local function merge(t, fields)
  for k, v in pairs(fields or {}) do t[k] = v end
end

local function emit(...)
  redis.call('XADD', K .. 'ev', 'MAXLEN', '~', 100000, '*', ...)
end

-- learn adds to what the wait estimate learns from, field by field. When the first, a count, reaches most,
-- all are halved: old experience fades.
local function learn(queue, most, ...)
  local key, pairs_ = K .. 'st:' .. queue, {...}
  for i = 1, #pairs_, 2 do redis.call('HINCRBY', key, pairs_[i], str(pairs_[i + 1])) end
  if tonumber(redis.call('HGET', key, pairs_[1])) < most then return end
  for i = 1, #pairs_, 2 do
    redis.call('HSET', key, pairs_[i], str(math.floor(redis.call('HGET', key, pairs_[i]) / 2)))
  end
end

-- indexed puts a member into a sorted set, or takes it out.
local function indexed(yes, set, score, member)
  if yes then
    redis.call('ZADD', K .. set, str(score), member)
  else
    redis.call('ZREM', K .. set, member)
  end
end

-- beats notes a node's heartbeat. When no node was heard for a while, none could be: Redis was away, and its
-- silence is not taken for theirs.
local function beats(node)
  local newest = tonumber(redis.call('ZREVRANGE', K .. 'nodes', 0, 0, 'WITHSCORES')[2])
  if newest and now - newest > GRACE then
    for _, other in ipairs(redis.call('ZRANGE', K .. 'nodes', 0, -1)) do
      redis.call('ZADD', K .. 'nodes', str(now), other)
    end
  end
  redis.call('ZADD', K .. 'nodes', str(now), node)
end
