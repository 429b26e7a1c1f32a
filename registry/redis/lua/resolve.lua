-- Find the record that a reference names.
--
-- KEYS  records versions by_digest aliases
-- ARGV  kind('version' | 'alias' | 'digest') value
-- Returns {version, body} | {}.
local kind, value = ARGV[1], ARGV[2]
local version = value
if kind == 'alias' then
  version = redis.call('HGET', KEYS[4], value)
elseif kind == 'digest' then
  version = redis.call('HGET', KEYS[3], value)
end
local body = version and redis.call('HGET', KEYS[1], version)
if not body then return {} end
return {version, body}
