-- Give an API key a new secret; the one before it is valid until a time, or no longer.
--
-- KEYS  api_key | changes sequence
-- ARGV  id max_changes now digest shown old_until('' for at once)
-- Returns {'rotated', {field, value...}} | {'missing'} | {'revoked'} | {'expired'}.
local key, changes, sequence = KEYS[1], KEYS[2], KEYS[3]
local id, max_changes, now, digest, shown, old_until = unpack(ARGV)

local before, expires_at, revoked_at =
  unpack(redis.call('HMGET', key, 'digest', 'expires_at', 'revoked_at'))
if revoked_at then return {'revoked'} end
if not before then return {'missing'} end
if expires_at and tonumber(expires_at) <= tonumber(now) then return {'expired'} end
if old_until == '' then
  redis.call('HDEL', key, 'old_digest', 'old_until')
else
  redis.call('HSET', key, 'old_digest', before, 'old_until', old_until)
end
redis.call('HSET', key, 'digest', digest, 'shown', shown, 'rotated_at', now)
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence),
  'kind', 'api_key', 'name', id, 'version', '0', 'digest', '')
return {'rotated', redis.call('HGETALL', key)}
