-- Ends a lease, if it is still the holder's, and tells who waits.
-- KEYS: the lease. ARGV: holder, the channel of its end.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], '')
return 1
