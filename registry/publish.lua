-- Give a name a new version, or find the one that already holds these bytes.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence
-- ARGV  name max_changes method_prefix digest method body alias('' for none)
-- Returns {version, 1 if created else 0, body}.
-- Work: constant but for the logarithm of the ordered indexes.
local records, versions, by_digest, aliases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local names, digests, counters, changes, sequence = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local name, max_changes, method_prefix = ARGV[1], ARGV[2], ARGV[3]
local digest, method, body, alias = ARGV[4], ARGV[5], ARGV[6], ARGV[7]

local function announce(kind, version)
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'sequence', redis.call('INCR', sequence),
    'kind', kind, 'name', name, 'version', version, 'digest', digest)
end

local function leave_index_of_latest()
  local latest = redis.call('HGET', aliases, 'latest')
  if not latest then return end
  local _, before = string.match(redis.call('HGET', records, latest), '^(%S+) (%S+)\n')
  redis.call('ZREM', method_prefix .. before, name)
end

local version = redis.call('HGET', by_digest, digest)
local created = 0
if not version then
  created = 1
  leave_index_of_latest()
  version = tostring(redis.call('HINCRBY', counters, name, 1))
  redis.call('ZADD', versions, version, version)
  redis.call('HSET', by_digest, digest, version)
  redis.call('HINCRBY', digests, digest, 1)
  redis.call('ZADD', names, 0, name)
  redis.call('ZADD', method_prefix .. method, 0, name)
  redis.call('HSET', aliases, 'latest', version)
  announce('published', version)
  redis.call('HSET', records, version, body)
end
if alias ~= '' and redis.call('HGET', aliases, alias) ~= version then
  redis.call('HSET', aliases, alias, version)
  announce('aliased', version)
end
return {version, created, redis.call('HGET', records, version)}
