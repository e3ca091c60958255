-- Takes a lease, or says who has it.
-- KEYS: the lease, the last fence. ARGV: holder, note, milliseconds.
local holder, note, fence = unpack(redis.call('HMGET', KEYS[1], 'holder', 'note', 'fence'))
if holder and holder ~= ARGV[1] then
  return { holder, note, redis.call('PTTL', KEYS[1]) }
end
if not fence then
  -- By the clock, so that it goes on rising in a Redis that lost its data.
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local last = tonumber(redis.call('GET', KEYS[2]) or '0')
  if now <= last then now = last + 1 end
  fence = string.format('%.0f', now)
  redis.call('SET', KEYS[2], fence)
end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'note', ARGV[2], 'fence', fence)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return { fence }
