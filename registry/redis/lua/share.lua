-- Share a name with some tenants, and with no others any more.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence | sharing
-- ARGV  name max_changes method_prefix shared_with_prefix tenants('' for none, else one a line)
--       tenant...
-- Returns {'shared'} | {'missing'} (no such name).
-- Work: the number of tenants.
local records, aliases, changes, sequence, sharing = KEYS[1], KEYS[4], KEYS[8], KEYS[9], KEYS[10]
local name, max_changes, shared_with, tenants = ARGV[1], ARGV[2], ARGV[4], ARGV[5]

local latest = redis.call('HGET', aliases, 'latest')
if not latest then return {'missing'} end
local before = redis.call('HGET', sharing, name) or ''
if before == tenants then return {'shared'} end

for tenant in string.gmatch(before, '[^\n]+') do
  redis.call('ZREM', shared_with .. tenant, name)
end
for i = 6, #ARGV do redis.call('ZADD', shared_with .. ARGV[i], 0, name) end
if tenants == '' then
  redis.call('HDEL', sharing, name)
else
  redis.call('HSET', sharing, name, tenants)
end
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence), 'kind', 'shared', 'name', name, 'version', latest,
  'digest', string.match(redis.call('HGET', records, latest), '^%S+'))
return {'shared'}
