-- Removes a route, and remembers that. See the table in `routes.rs`.
-- KEYS: the route. ARGV: sandbox, generation (20 digits), node, milliseconds to remember, prefix of
-- nodes' sets.
local generation, node = unpack(redis.call('HMGET', KEYS[1], 'generation', 'node'))
if generation and generation > ARGV[2] then return 0 end
if node and generation == ARGV[2] and node ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[1])
if node then redis.call('SREM', ARGV[5] .. node, ARGV[1]) end
redis.call('HSET', KEYS[1], 'generation', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return node and 1 or 0
