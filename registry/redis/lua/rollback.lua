-- Point `latest` to the live version before the one it points to now.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence
-- ARGV  name max_changes method_prefix
-- Returns {'rolled_back', version, body} | {'missing'} | {'first', current}.
local records, versions, aliases, changes, sequence = KEYS[1], KEYS[2], KEYS[4], KEYS[8], KEYS[9]
local name, max_changes, method_prefix = ARGV[1], ARGV[2], ARGV[3]

local function head(version) -- digest, method
  return string.match(redis.call('HGET', records, version), '^(%S+) (%S+)\n')
end

local latest = redis.call('HGET', aliases, 'latest')
if not latest then return {'missing'} end
local lower = redis.call('ZRANGE', versions, '(' .. latest, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)
local version = lower[1]
if not version then return {'first', latest} end

local _, before = head(latest)
local digest, method = head(version)
redis.call('ZREM', method_prefix .. before, name)
redis.call('ZADD', method_prefix .. method, 0, name)
redis.call('HSET', aliases, 'latest', version)
redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
  'sequence', redis.call('INCR', sequence),
  'kind', 'rolled_back', 'name', name, 'version', version, 'digest', digest)
return {'rolled_back', version, redis.call('HGET', records, version)}
