-- Sets a route unless something newer stands. See the table in `routes.rs`.
-- KEYS: the route. ARGV: sandbox, generation (20 digits), node, record, prefix of nodes' sets.
-- Texts of digits of one length are in the order of their numbers, and lose nothing as such.
local generation, node = unpack(redis.call('HMGET', KEYS[1], 'generation', 'node'))
if generation and generation > ARGV[2] then return 0 end
if generation then
  -- First what needs no memory: a full Redis then lets the rest pass, which replaces as much.
  redis.call('DEL', KEYS[1])
  if node and node ~= ARGV[3] then redis.call('SREM', ARGV[5] .. node, ARGV[1]) end
end
redis.call('HSET', KEYS[1], 'generation', ARGV[2], 'node', ARGV[3], 'route', ARGV[4])
redis.call('SADD', ARGV[5] .. ARGV[3], ARGV[1])
return 1
