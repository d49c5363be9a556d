-- What every script begins with: now, in ms of Redis' own clock, the only one in a deadline.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
