-- Write a new API key's record; drop a few of those that ended long ago.
--
-- KEYS  api_key order of_tenant ended | identity changes sequence
-- ARGV  id max_changes max_keys created_at expires_at('' for never) forget_before only_as_first('1')
--       key_prefix of_prefix field value...
-- Returns {'created', {field, value...}} | {'full'} | {'not_first'}.
local key, order, of_tenant, ended = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local identity, changes, sequence = KEYS[5], KEYS[6], KEYS[7]
local id, max_changes, max_keys, created_at = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local expires_at, forget_before, only_as_first = ARGV[5], ARGV[6], ARGV[7] == '1'
local key_prefix, of_prefix = ARGV[8], ARGV[9]

if only_as_first and redis.call('HEXISTS', identity, 'has_keys') == 1 then return {'not_first'} end
local gone = redis.call('ZRANGE', ended, '-inf', forget_before, 'BYSCORE', 'LIMIT', 0, 100)
for _, old in ipairs(gone) do
  local tenant = redis.call('HGET', key_prefix .. old, 'tenant')
  if tenant then redis.call('ZREM', of_prefix .. tenant, old) end
  redis.call('DEL', key_prefix .. old)
  redis.call('ZREM', order, old)
  redis.call('ZREM', ended, old)
end
if redis.call('ZCARD', order) >= max_keys then return {'full'} end

redis.call('HSET', key, unpack(ARGV, 10))
redis.call('ZADD', order, created_at, id)
redis.call('ZADD', of_tenant, created_at, id)
if expires_at ~= '' then redis.call('ZADD', ended, expires_at, id) end
redis.call('HSET', identity, 'has_keys', '1')
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence),
  'kind', 'api_key', 'name', id, 'version', '0', 'digest', '')
return {'created', redis.call('HGETALL', key)}
