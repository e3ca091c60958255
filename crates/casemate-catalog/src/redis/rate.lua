-- Takes a token of a bucket: the arithmetic of `rates.rs`, by the clock of Redis.
-- KEYS: the bucket. ARGV: microseconds for each token, burst.
-- Answers whether there was one, microseconds of room that are left or missing, and until it is full.
local each, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local whole = each * burst
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
full_at = math.min(math.max(full_at, now), now + whole)
local room = now + whole - full_at - each
local taken = 0
if room >= -0.5 then
  taken = 1
  full_at = full_at + each
  -- Full again, it is as good as one that was never used.
  redis.call('SET', KEYS[1], string.format('%.17g', full_at), 'PX', math.ceil((full_at - now) / 1000))
end
return { taken, string.format('%.17g', room), string.format('%.17g', full_at - now) }
