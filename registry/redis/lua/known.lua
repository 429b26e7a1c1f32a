-- Tell of fields of hashes whether they are there, if the registry is the one that is meant.
--
-- KEYS  identity hash...
-- ARGV  registry's id, then a field of each hash
-- Returns {1 | 0, ...} | {'other'} (the registry has another id, or none).
if redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then return {'other'} end
local reply = {}
for i = 2, #KEYS do reply[i - 1] = redis.call('HEXISTS', KEYS[i], ARGV[i]) end
return reply
