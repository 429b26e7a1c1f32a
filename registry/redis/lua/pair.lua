-- Give the registry an id and a store's id, if it has none yet, and tell which it has.
--
-- KEYS  identity
-- ARGV  id store replace('1': the store's id is replaced; '' otherwise)
-- Returns {id, store}.
redis.call('HSETNX', KEYS[1], 'id', ARGV[1])
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], 'store', ARGV[2])
else
  redis.call('HSETNX', KEYS[1], 'store', ARGV[2])
end
return redis.call('HMGET', KEYS[1], 'id', 'store')
