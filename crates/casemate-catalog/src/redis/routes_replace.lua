-- Makes the routes to a node those that are given.
-- KEYS: the set of the node. ARGV: node, milliseconds to remember removals, prefix of routes,
-- prefix of nodes' sets, how many are unsure, these, then sandbox, generation, record of each route.
local stay, at = {}, 6
for _ = 1, tonumber(ARGV[5]) do
  stay[ARGV[at]] = true
  at = at + 1
end
for i = at, #ARGV, 3 do stay[ARGV[i]] = true end
for _, sandbox in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  if not stay[sandbox] then
    local key = ARGV[3] .. sandbox
    local generation, node = unpack(redis.call('HMGET', key, 'generation', 'node'))
    redis.call('SREM', KEYS[1], sandbox)
    if node == ARGV[1] then
      redis.call('DEL', key)
      redis.call('HSET', key, 'generation', generation)
      redis.call('PEXPIRE', key, ARGV[2])
    end
  end
end
for i = at, #ARGV, 3 do
  local key = ARGV[3] .. ARGV[i]
  local generation, node = unpack(redis.call('HMGET', key, 'generation', 'node'))
  if not generation or generation <= ARGV[i + 1] then
    if generation then
      redis.call('DEL', key)
      if node and node ~= ARGV[1] then redis.call('SREM', ARGV[4] .. node, ARGV[i]) end
    end
    redis.call('HSET', key, 'generation', ARGV[i + 1], 'node', ARGV[1], 'route', ARGV[i + 2])
    redis.call('SADD', KEYS[1], ARGV[i])
  end
end
return 1
