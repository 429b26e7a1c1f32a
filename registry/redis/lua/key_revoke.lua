-- End an API key for good: the hashes of its secrets go, and its record stays for a while.
--
-- KEYS  api_key ended | changes sequence
-- ARGV  id max_changes now
-- Returns {'revoked', {field, value...}} | {'missing'}; a second time nothing changes.
local key, ended, changes, sequence = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, max_changes, now = ARGV[1], ARGV[2], ARGV[3]

if redis.call('EXISTS', key) == 0 then return {'missing'} end
if redis.call('HSETNX', key, 'revoked_at', now) == 1 then
  redis.call('HDEL', key, 'digest', 'old_digest', 'old_until')
  redis.call('ZADD', ended, 'LT', now, id)
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'sequence', redis.call('INCR', sequence),
    'kind', 'api_key', 'name', id, 'version', '0', 'digest', '')
end
return {'revoked', redis.call('HGETALL', key)}
