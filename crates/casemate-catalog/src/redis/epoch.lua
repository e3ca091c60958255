-- What this data is known by: made when it is not there, as in a Redis that lost its data.
-- KEYS: the epoch. ARGV: a new one.
local epoch = redis.call('GET', KEYS[1])
if epoch then return epoch end
redis.call('SET', KEYS[1], ARGV[1])
return ARGV[1]
