-- Give an adapter another name: its owner has one.
--
-- KEYS  old records versions by_digest aliases | new records versions by_digest aliases
--       old names, new names, counters changes sequence sharing
-- ARGV  old new max_changes old_method_prefix new_method_prefix shared_with_prefix
-- Returns {'moved'} | {'missing'} (no such name) | {'taken'} (the new name is there).
local old_names, new_names, counters = KEYS[9], KEYS[10], KEYS[11]
local changes, sequence, sharing = KEYS[12], KEYS[13], KEYS[14]
local old, new, max_changes = ARGV[1], ARGV[2], ARGV[3]
local old_method_prefix, new_method_prefix, shared_with = ARGV[4], ARGV[5], ARGV[6]

local latest = redis.call('HGET', KEYS[4], 'latest')
if not latest then return {'missing'} end
if redis.call('EXISTS', KEYS[5]) == 1 then return {'taken'} end
for i = 1, 4 do redis.call('RENAME', KEYS[i], KEYS[i + 4]) end

local digest, method = string.match(redis.call('HGET', KEYS[5], latest), '^(%S+) (%S+)\n')
redis.call('ZREM', old_names, old)
redis.call('ZADD', new_names, 0, new)
held.forget_sum(old_names)
held.forget_sum(new_names)
redis.call('ZREM', old_method_prefix .. method, old)
redis.call('ZADD', new_method_prefix .. method, 0, new)

-- Neither name may get a number again that it had.
local given = tonumber(redis.call('HGET', counters, old))
if given > tonumber(redis.call('HGET', counters, new) or '0') then
  redis.call('HSET', counters, new, given)
end

local tenants = redis.call('HGET', sharing, old)
if tenants then
  redis.call('HDEL', sharing, old)
  redis.call('HSET', sharing, new, tenants)
  for tenant in string.gmatch(tenants, '[^\n]+') do
    redis.call('ZREM', shared_with .. tenant, old)
    redis.call('ZADD', shared_with .. tenant, 0, new)
  end
end
for _, name in ipairs({old, new}) do
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'sequence', redis.call('INCR', sequence),
    'kind', 'renamed', 'name', name, 'version', latest, 'digest', digest)
end
return {'moved'}
