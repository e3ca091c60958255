-- Makes a lease last from now on, if it is still the holder's.
-- KEYS: the lease. ARGV: holder, milliseconds.
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
