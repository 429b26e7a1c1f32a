-- Give a name a new version, or find the one that already holds these bytes.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence | job
-- ARGV  name max_changes method_prefix digest method body alias('' for none) fence keeps_latest
--       records_prefix size_bytes; limits('' for none): adapters adapter_bytes
--       job and fence: only of a training job; it publishes once, and only while it holds the job
--       keeps_latest: '1' leaves `latest` where it is, if the name has one
-- Returns {version, 1 if created else 0, body} | {'fenced', state of the job} |
-- {'full', limit, used}.
-- Work: constant but for the logarithm of the ordered indexes and for held.lua's count where bytes
-- are limited.
local records, versions, by_digest, aliases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local names, digests, counters, changes, sequence = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local name, max_changes, method_prefix = ARGV[1], ARGV[2], ARGV[3]
local digest, method, body, alias = ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local job, fence = KEYS[10], ARGV[8]
local keeps_latest = ARGV[9] == '1' and redis.call('HEXISTS', aliases, 'latest') == 1
local records_prefix, size_bytes = ARGV[10], tonumber(ARGV[11])
local max_adapters, max_bytes = ARGV[12], ARGV[13]

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

local made
if job then
  local state = redis.call('HGET', job, 'state')
  -- The move to 'running' may arrive after the adapter.
  local held = state == 'running' or state == 'validating_files'
  if not held or redis.call('HGET', job, 'fence') ~= fence then
    return {'fenced', state or 'missing'}
  end
  made = redis.call('HGET', job, 'version')
  if made and redis.call('HEXISTS', records, made) == 0 then made = false end
  if made then digest = redis.call('HGET', job, 'digest') end
end

local version = made or redis.call('HGET', by_digest, digest)
local created = 0
if not version and not redis.call('ZSCORE', names, name) then
  local used = held.adapters(names)
  if is_over(max_adapters, used, 1) then return {'full', 'adapters', used} end
end
if not version and max_bytes ~= '' then
  local used = held.adapter_bytes(names, records_prefix, true)
  if is_over(max_bytes, used, size_bytes) then
    return {'full', 'adapter_bytes', string.format('%.0f', used)}
  end
end
if not version then
  created = 1
  if not keeps_latest then leave_index_of_latest() end
  version = tostring(redis.call('HINCRBY', counters, name, 1))
  redis.call('ZADD', versions, version, version)
  redis.call('HSET', by_digest, digest, version)
  redis.call('HINCRBY', digests, digest, 1)
  redis.call('ZADD', names, 0, name)
  if not keeps_latest then
    redis.call('ZADD', method_prefix .. method, 0, name)
    redis.call('HSET', aliases, 'latest', version)
  end
  announce('published', version)
  redis.call('HSET', records, version, body)
  held.grow(names, size_bytes)
end
if alias ~= '' and redis.call('HGET', aliases, alias) ~= version then
  redis.call('HSET', aliases, alias, version)
  announce('aliased', version)
end
if job and not made then redis.call('HSET', job, 'version', version, 'digest', digest) end
return {version, created, redis.call('HGET', records, version)}
