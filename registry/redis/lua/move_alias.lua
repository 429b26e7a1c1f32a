-- Point an alias to a version, if it is still where the caller saw it.
--
-- KEYS  records versions by_digest aliases | names digests counters changes sequence
-- ARGV  name max_changes method_prefix alias version expected...
--       expected: nothing (no condition), '*' (the alias exists), or the versions it may be at
-- Returns {'moved'} | {'missing'} (no such version) | {'stale', current or ''}.
local records, aliases, changes, sequence = KEYS[1], KEYS[4], KEYS[8], KEYS[9]
local name, max_changes, alias, version = ARGV[1], ARGV[2], ARGV[4], ARGV[5]

local body = redis.call('HGET', records, version)
if not body then return {'missing'} end

local current = redis.call('HGET', aliases, alias)
local expected = #ARGV == 5
for i = 6, #ARGV do
  if current and (ARGV[i] == '*' or ARGV[i] == current) then expected = true end
end
if not expected then return {'stale', current or ''} end

if current ~= version then
  redis.call('HSET', aliases, alias, version)
  redis.call('XADD', changes, 'MAXLEN', '~', max_changes, '*',
    'sequence', redis.call('INCR', sequence),
    'kind', 'aliased', 'name', name, 'version', version, 'digest', string.match(body, '^%S+'))
end
return {'moved'}
