-- phones_get reads where an extension's phones are; those whose time is over are left out.
-- KEYS  1 the extension's hash
-- returns {value, ...}
-- cost  O(phones of the extension), about 3 us
local out = {}
for _, text in ipairs(redis.call('HVALS', KEYS[1])) do
  local ends, value = string.match(text, '^(%d+) (.*)$')
  if tonumber(ends) > now then out[#out + 1] = value end
end
return out
