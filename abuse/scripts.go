package abuse

import (
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// Keys of one number, {p} its pseudonym of the epoch:
//
//	hotline:abuse:{p}:leases   zset  call@node by the end of its lease, in ms of Redis TIME
//	hotline:abuse:{p}:live     hash  call@node -> "ivr queue talk", ms so far, of the calls with a lease
//	hotline:abuse:{p}:counted  hash  call -> "start answered ended outcome agent evidence waiting occupancy" of
//	                                 the latest counted calls, times in ms; evidence is "none" or "-"
//
// Keys of all measures; there are few, and one hash lets one script change any with its event:
//
//	hotline:{measures}:running     hash    case pseudonym -> the measure as JSON
//	hotline:{measures}:stream      stream  what happened to measures, as JSON under "e"
//	hotline:{measures}:generation  string  random, made by the first node that finds Redis without it
//	hotline:{measures}:chains      hash    node -> ms of Redis TIME at which its whole chain was in the stream
//	hotline:{measures}:built       set     nodes that have put the measures of their chains into running
const (
	firstID       = "0-0" // before every event
	keyRunning    = "hotline:{measures}:running"
	keyStream     = "hotline:{measures}:stream"
	keyGeneration = "hotline:{measures}:generation"
	keyChains     = "hotline:{measures}:chains"
	keyBuilt      = "hotline:{measures}:built"
	streamLength  = 100_000
)

func keyLeases(p string) string  { return "hotline:abuse:{" + p + "}:leases" }
func keyLive(p string) string    { return "hotline:abuse:{" + p + "}:live" }
func keyCounted(p string) string { return "hotline:abuse:{" + p + "}:counted" }

type scripts struct{ admit, beat, count, change, meet, rebuild, move *redis.Script }

func newScripts(s *store.Store) scripts {
	return scripts{
		admit:   s.Script("abuse_admit", admitSource),
		beat:    s.Script("abuse_beat", beatSource),
		count:   s.Script("abuse_count", countSource),
		change:  s.Script("abuse_change", changeSource),
		meet:    s.Script("abuse_meet", meetSource),
		rebuild: s.Script("abuse_rebuild", rebuildSource),
		move:    s.Script("abuse_move", moveSource),
	}
}

// prune begins the two scripts of leases: it sets now (ms) and drops leases that have ended.
const prune = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function drop(id)
	redis.call('ZREM', KEYS[1], id)
	redis.call('HDEL', KEYS[2], id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do drop(id) end
`

// admitSource takes a lease for a call, or refuses it, and tells the number's facts. A call that has a
// lease keeps it, so a repetition changes nothing. The leases of nodes that are gone end at once.
//
//	KEYS     leases, live, counted
//	ARGV     call@node, lease in ms, most leases at once, then the nodes that are gone
//	returns  {1 taken or 0 refused, {counted call, ...}}
//	cost     O(log leases + counted), both at most some ten; with nodes gone O(leases)
const admitSource = prune + `
local gone = {}
for i = 4, #ARGV do gone[ARGV[i]] = true end
if #ARGV > 3 then
	for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
		if gone[string.match(id, '@(.*)$') or ''] then drop(id) end
	end
end
local taken = 0
if redis.call('ZSCORE', KEYS[1], ARGV[1]) or redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[3]) then
	redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
	redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
	taken = 1
end
return {taken, redis.call('HVALS', KEYS[3])}
`

// beatSource prolongs the lease of a call that is up, and notes what it has occupied so far: totals, so
// that a repetition changes nothing. A lease that was lost meanwhile is taken again, over the limit if
// need be: the call is up, and the next one must wait for it.
//
//	KEYS     leases, live, counted
//	ARGV     call@node, lease in ms, "ivr queue talk" in ms, most leases at once
//	returns  {0 kept or 1 taken again or 2 over the limit, {counted call, ...}, {"ivr queue talk" of each call that is up, ...}}
//	cost     as admit
const beatSource = prune + `
local place = 0
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
	place = redis.call('ZCARD', KEYS[1]) < tonumber(ARGV[4]) and 1 or 2
end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
return {place, redis.call('HVALS', KEYS[3]), redis.call('HVALS', KEYS[2])}
`

// countSource adds a call to the latest counted calls. It sets a field of the call's own name, so a
// repetition changes nothing.
//
//	KEYS     counted
//	ARGV     call id, what is kept of it as above, how many are kept, ms for which they are kept
//	returns  how many are kept now
//	cost     O(counted^2) at worst, normally O(counted)
const countSource = `
local t = redis.call('TIME')
local oldest = t[1] * 1000 + math.floor(t[2] / 1000) - ARGV[4]
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
local calls = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
	calls[#calls + 1] = {id = all[i], start = tonumber(string.match(all[i + 1], '^%d+'))}
end
table.sort(calls, function(a, b) return a.start > b.start or (a.start == b.start and a.id < b.id) end)
for i, c in ipairs(calls) do
	if i > tonumber(ARGV[3]) or c.start <= oldest then redis.call('HDEL', KEYS[1], c.id) end
end
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return redis.call('HLEN', KEYS[1])
`

// changeSource sets, replaces or removes a measure if it is still what the changer saw, and tells the
// stream.
//
//	KEYS     running, stream
//	ARGV     case pseudonym, JSON as seen ("" for none), JSON to be ("" for none), event, stream's length
//	returns  1 changed, 0 it is not as seen
//	cost     O(1)
const changeSource = `
if (redis.call('HGET', KEYS[1], ARGV[1]) or '') ~= ARGV[2] then return 0 end
if ARGV[3] == '' then
	redis.call('HDEL', KEYS[1], ARGV[1])
else
	redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[5], '*', 'e', ARGV[4])
return 1
`

// meetSource makes the generation's mark where there is none, and tells which nodes' chains are in the
// stream as of when. A node whose whole chain is in the stream of this generation says so.
//
//	KEYS     generation, chains
//	ARGV     a fresh mark, node, the generation into whose stream it has put its chain ("" for none)
//	returns  {generation, now in ms, {node, ms, ...}}
//	cost     O(nodes)
const meetSource = `
redis.call('SET', KEYS[1], ARGV[1], 'NX')
local generation = redis.call('GET', KEYS[1])
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if generation == ARGV[3] then redis.call('HSET', KEYS[2], ARGV[2], string.format('%.0f', now)) end
local chains = redis.call('HGETALL', KEYS[2])
for i = 1, #chains, 2 do
	if tonumber(chains[i + 1]) < now - 86400000 then redis.call('HDEL', KEYS[2], chains[i]) end
end
return {generation, string.format('%.0f', now), chains}
`

// rebuildSource puts the measures of a node's ledger into a Redis that was emptied: once a node, and only
// if the node has read all of the stream.
//
//	KEYS     running, stream, built
//	ARGV     node, the last event that it has read ("0-0" for none), then case pseudonym and JSON of each measure
//	returns  1 built, 0 it was before, -1 there are newer events
//	cost     O(measures)
const rebuildSource = `
if redis.call('SISMEMBER', KEYS[3], ARGV[1]) == 1 then return 0 end
local last = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if last[1] and last[1][1] ~= ARGV[2] then return -1 end
redis.call('SADD', KEYS[3], ARGV[1])
for i = 3, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
`

// moveSource gives a running measure the pseudonym of the key that the nodes have agreed on since.
//
//	KEYS     running
//	ARGV     old pseudonym, JSON as seen, new pseudonym
//	returns  1 moved, 0 it is not as seen
//	cost     O(1)
const moveSource = `
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HSETNX', KEYS[1], ARGV[3], ARGV[2])
return 1
`
