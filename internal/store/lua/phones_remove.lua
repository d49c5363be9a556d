-- phones_remove takes a phone away.
-- KEYS  1 due, 2 the extension's hash
-- ARGV  1 extension, 2 key
-- returns 1 when it was there, else 0
-- cost  O(log phones)
redis.call('ZREM', KEYS[1], ARGV[1] .. ' ' .. ARGV[2])
return redis.call('HDEL', KEYS[2], ARGV[2])
