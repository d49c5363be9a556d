-- vault_agree keeps a sealed secret unless there is one of its name, and returns what is kept.
-- KEYS  1 secrets (hash: name -> sealed)
-- ARGV  1 name, 2 sealed, 3 most secrets
-- returns the sealed secret of that name; error VAULTFULL
-- cost  O(1), about 3 us
local kept = redis.call('HGET', KEYS[1], ARGV[1])
if kept then return kept end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  return redis.error_reply('VAULTFULL there are ' .. ARGV[3] .. ' secrets')
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return ARGV[2]
