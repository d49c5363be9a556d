-- phones_list reads a page of all phones. A phone may come twice while others come and go, as in any scan.
-- The keys of the extensions are made from KEYS[1] and carry its hash tag.
-- KEYS  1 prefix, 2 due
-- ARGV  1 cursor, "0" at first, 2 about how many
-- returns {next cursor, "0" at the end; "extension key", value, ...}
-- cost  O(page), about 1 ms with 500
local page = redis.call('ZSCAN', KEYS[2], ARGV[1], 'COUNT', ARGV[2])
local out = {page[1]}
for i = 1, #page[2], 2 do
  local extension, key = string.match(page[2][i], '^(%S+) (.*)$')
  local text = tonumber(page[2][i + 1]) > now and redis.call('HGET', KEYS[1] .. ':' .. extension, key)
  if text then
    out[#out + 1] = page[2][i]
    out[#out + 1] = string.match(text, '^%d+ (.*)$')
  end
end
return out
