-- Delete one version, or the whole name.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence | sharing
-- ARGV  name max_changes method_prefix version('' for all) shared_with_prefix
-- Returns {'deleted', digest...} (those no record refers to any more) | {'missing'} |
--         {'in_use', alias...}.
-- Work: the number of deleted versions, and of the name's aliases.
local records, versions, by_digest, aliases = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local names, digests, changes, sequence = KEYS[5], KEYS[6], KEYS[8], KEYS[9]
local sharing, shared_with = KEYS[10], ARGV[5]
local name, max_changes, method_prefix, version = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local orphans = {'deleted'}

local function head(wanted) -- digest, method
  return string.match(redis.call('HGET', records, wanted), '^(%S+) (%S+)\n')
end

local function index_of(wanted)
  local _, method = head(wanted)
  return method_prefix .. method
end

local function holders_of(wanted)
  local found, flat = {'in_use'}, redis.call('HGETALL', aliases)
  for i = 1, #flat, 2 do
    if flat[i] ~= 'latest' and flat[i + 1] == wanted then found[#found + 1] = flat[i] end
  end
  return found
end

local function forget(gone)
  local digest = head(gone)
  held.grow(names, -held.record_bytes(redis.call('HGET', records, gone)))
  redis.call('HDEL', records, gone)
  redis.call('ZREM', versions, gone)
  redis.call('HDEL', by_digest, digest)
  if redis.call('HINCRBY', digests, digest, -1) <= 0 then
    redis.call('HDEL', digests, digest)
    orphans[#orphans + 1] = digest
  end
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'sequence', redis.call('INCR', sequence),
    'kind', 'deleted', 'name', name, 'version', gone, 'digest', digest)
end

local function unshare()
  for tenant in string.gmatch(redis.call('HGET', sharing, name) or '', '[^\n]+') do
    redis.call('ZREM', shared_with .. tenant, name)
  end
  redis.call('HDEL', sharing, name)
end

-- The next lower live version, so that one which was rolled back does not return by itself.
local function heir_of(gone)
  local lower = redis.call('ZRANGE', versions, '(' .. gone, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, 1)
  return lower[1] or redis.call('ZRANGE', versions, 0, 0, 'REV')[1]
end

local latest = redis.call('HGET', aliases, 'latest')
if not latest then return {'missing'} end
if version ~= '' then
  if redis.call('HEXISTS', records, version) == 0 then return {'missing'} end
  local holders = holders_of(version)
  if #holders > 1 then return holders end
end

if version == '' or version == latest then redis.call('ZREM', index_of(latest), name) end
if version == '' then
  for _, each in ipairs(redis.call('ZRANGE', versions, 0, -1)) do forget(each) end
else
  forget(version)
end

if redis.call('EXISTS', records) == 0 then
  redis.call('DEL', aliases)
  redis.call('ZREM', names, name)
  unshare()
elseif version == latest then
  local heir = heir_of(version)
  redis.call('HSET', aliases, 'latest', heir)
  redis.call('ZADD', index_of(heir), 0, name)
end
return orphans
