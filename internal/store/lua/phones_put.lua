-- phones_put notes where a phone is, until the time is over, and sweeps a few of the phones whose time is.
-- The keys of those are made from KEYS[1] and carry its hash tag.
-- KEYS  1 prefix, 2 due (zset: "extension key" by the ms it ends), 3 the extension's hash (key -> "ms value")
-- ARGV  1 extension, 2 key, 3 value, 4 ms it holds, 5 most in all, 6 most of the extension, 7 most swept
-- returns 1; error PHONESFULL
-- cost  O(log phones + swept), about 10 us
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[7])) do
  local extension, key = string.match(member, '^(%S+) (.*)$')
  redis.call('ZREM', KEYS[2], member)
  redis.call('HDEL', KEYS[1] .. ':' .. extension, key)
end
if redis.call('HEXISTS', KEYS[3], ARGV[2]) == 0 then
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) or redis.call('HLEN', KEYS[3]) >= tonumber(ARGV[6]) then
    return redis.error_reply('PHONESFULL no room for another phone')
  end
end
local ends = string.format('%.0f', now + ARGV[4])
redis.call('HSET', KEYS[3], ARGV[2], ends .. ' ' .. ARGV[3])
redis.call('ZADD', KEYS[2], ends, ARGV[1] .. ' ' .. ARGV[2])
return 1
