-- Give an API key to another tenant, if it is still this one's.
--
-- KEYS  api_key, old tenant's index, new tenant's index | changes sequence
-- ARGV  id max_changes old new
-- Returns 1 if it was given, else 0.
local key, old, new, changes, sequence = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, max_changes, was, tenant = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local score = redis.call('ZSCORE', old, id)
if not score or redis.call('HGET', key, 'tenant') ~= was then return 0 end
redis.call('HSET', key, 'tenant', tenant)
redis.call('ZADD', new, score, id)
redis.call('ZREM', old, id)
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence),
  'kind', 'api_key', 'name', id, 'version', '0', 'digest', '')
return 1
