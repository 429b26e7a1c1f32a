-- Write or remove an uploaded file's record.
--
-- KEYS  files order users
-- ARGV  op('put' | 'delete') id tenant_prefix tenant created_at body size_bytes
--       limits('' for none): files file_bytes
-- Returns {'done'} | {'full', limit, used} | {'missing'} | {'in_use', job...}.
local files, order, users = KEYS[1], KEYS[2], KEYS[3]
local op, id, tenant_index = ARGV[1], ARGV[2], ARGV[3] .. ARGV[4]
if op == 'put' then
  local size_bytes, max_files, max_bytes = tonumber(ARGV[7]), ARGV[8], ARGV[9]
  local count = held.files(tenant_index)
  if is_over(max_files, count, 1) then return {'full', 'files', count} end
  if max_bytes ~= '' then
    local used = held.file_bytes(tenant_index, files, true)
    if is_over(max_bytes, used, size_bytes) then
      return {'full', 'file_bytes', string.format('%.0f', used)}
    end
  end
  redis.call('HSET', files, id, ARGV[6])
  redis.call('ZADD', order, ARGV[5], id)
  redis.call('ZADD', tenant_index, ARGV[5], id)
  held.grow(tenant_index, size_bytes)
  return {'done'}
end
local body = redis.call('HGET', files, id)
if not body then return {'missing'} end
if redis.call('SCARD', users) > 0 then return {'in_use', unpack(redis.call('SMEMBERS', users))} end
redis.call('HDEL', files, id)
redis.call('ZREM', order, id)
redis.call('ZREM', tenant_index, id)
held.grow(tenant_index, -cjson.decode(body).size_bytes)
return {'done'}
