-- sync_begin lets nobody meet for a while, since another server has taken Redis' place: also what the node that begins
-- its account agrees with may be news of another node's that was lost.
-- ARGV  1 unused
-- returns 1
-- cost  O(1), about 3 us
hold()
return 1
