-- owe notes a caller whom no queue has noted. Idempotent by call.
-- ARGV  1 unused, 2 entry (JSON) with reason and left, ms ago
-- returns 1
-- cost  O(1), about 15 us
local e = cjson.decode(ARGV[2])
owe(entry_of(e), e.reason, now - e.left)
return 1
