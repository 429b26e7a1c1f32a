-- Set a tenant's own limits, or remove them.
--
-- KEYS  limits | changes sequence
-- ARGV  tenant max_changes body('' for none)
local limits, changes, sequence = KEYS[1], KEYS[2], KEYS[3]
local tenant, max_changes, body = ARGV[1], ARGV[2], ARGV[3]

if body == '' then
  redis.call('HDEL', limits, tenant)
else
  redis.call('HSET', limits, tenant, body)
end
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence),
  'kind', 'limits', 'name', tenant, 'version', '0', 'digest', '')
