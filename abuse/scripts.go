package abuse

import (
	"github.com/redis/go-redis/v9"

	"github.com/hotline12345/gateway/internal/store"
)

// Keys of one number, {p} its pseudonym of the epoch:
//
//	hotline:abuse:{p}:leases   zset  call id by the end of its lease, in ms of Redis TIME
//	hotline:abuse:{p}:live     hash  call id -> "ivr queue talk", ms so far, of the calls with a lease
//	hotline:abuse:{p}:counted  hash  call id -> "start answered ended", ms, of the latest counted calls
//
// Keys of all measures; there are few, and one hash lets one script change any with its event:
//
//	hotline:{measures}:running     hash    case pseudonym -> the measure as JSON
//	hotline:{measures}:stream      stream  what happened to measures, as JSON under "e"
//	hotline:{measures}:generation  string  random, made when the measures were last built from a chain
const (
	keyRunning    = "hotline:{measures}:running"
	keyStream     = "hotline:{measures}:stream"
	keyGeneration = "hotline:{measures}:generation"
	streamLength  = 100_000
)

func keyLeases(p string) string  { return "hotline:abuse:{" + p + "}:leases" }
func keyLive(p string) string    { return "hotline:abuse:{" + p + "}:live" }
func keyCounted(p string) string { return "hotline:abuse:{" + p + "}:counted" }

type scripts struct{ admit, beat, count, change, rebuild *redis.Script }

func newScripts(s *store.Store) scripts {
	return scripts{
		admit:   s.Script("abuse_admit", admitSource),
		beat:    s.Script("abuse_beat", beatSource),
		count:   s.Script("abuse_count", countSource),
		change:  s.Script("abuse_change", changeSource),
		rebuild: s.Script("abuse_rebuild", rebuildSource),
	}
}

// prune begins the two scripts of leases: it sets now (ms) and drops leases that have ended.
const prune = `
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)) do
	redis.call('ZREM', KEYS[1], id)
	redis.call('HDEL', KEYS[2], id)
end
`

// admitSource takes a lease for a call, or refuses it, and tells the number's facts. A call that has a
// lease keeps it, so a repetition changes nothing.
//
//	KEYS     leases, live, counted
//	ARGV     call id, lease in ms, most leases at once
//	returns  {1 taken or 0 refused, {counted call, ...}}
//	cost     O(log leases + counted), both at most some ten
const admitSource = prune + `
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
// need be: the call is up, and the count must say so.
//
//	KEYS     leases, live, counted
//	ARGV     call id, lease in ms, "ivr queue talk" in ms
//	returns  {{counted call, ...}, {"ivr queue talk" of each call that is up, ...}}
//	cost     as admit
const beatSource = prune + `
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
redis.call('PEXPIRE', KEYS[1], 2 * ARGV[2])
redis.call('PEXPIRE', KEYS[2], 2 * ARGV[2])
return {redis.call('HVALS', KEYS[3]), redis.call('HVALS', KEYS[2])}
`

// countSource adds a call to the latest counted calls. It sets a field of the call's own name, so a
// repetition changes nothing.
//
//	KEYS     counted
//	ARGV     call id, "start answered ended" in ms, how many are kept, ms for which they are kept
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

// rebuildSource puts the measures of a chain into a Redis that has lost them: once, whoever comes first.
//
//	KEYS     running, generation
//	ARGV     the new generation, then case pseudonym and JSON of each measure
//	returns  1 built, 0 it was not empty
//	cost     O(measures)
const rebuildSource = `
if not redis.call('SET', KEYS[2], ARGV[1], 'NX') then return 0 end
for i = 2, #ARGV, 2 do redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[i + 1]) end
return 1
`
