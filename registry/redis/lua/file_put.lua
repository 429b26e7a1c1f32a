-- Write or remove an uploaded file's record.
--
-- KEYS  files order users
-- ARGV  op('put' | 'delete') id tenant_prefix tenant created_at body
-- Returns {'done'} | {'missing'} | {'in_use', job...}.
local files, order, users = KEYS[1], KEYS[2], KEYS[3]
local op, id, tenant_index = ARGV[1], ARGV[2], ARGV[3] .. ARGV[4]
if op == 'put' then
  redis.call('HSET', files, id, ARGV[6])
  redis.call('ZADD', order, ARGV[5], id)
  redis.call('ZADD', tenant_index, ARGV[5], id)
  return {'done'}
end
if redis.call('HEXISTS', files, id) == 0 then return {'missing'} end
if redis.call('SCARD', users) > 0 then return {'in_use', unpack(redis.call('SMEMBERS', users))} end
redis.call('HDEL', files, id)
redis.call('ZREM', order, id)
redis.call('ZREM', tenant_index, id)
return {'done'}
