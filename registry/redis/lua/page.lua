-- Read the latest records, the aliases and the sharing of the next names in lexical order, at one
-- moment.
--
-- KEYS  an index of names, sharing
-- ARGV  lower upper (as ZRANGE BYLEX takes them) limit records_prefix aliases_prefix
-- Returns {name, version, body, sharing('' for none), {alias, version, ...}, name, ...}.
-- Work: the page, however many names there are.
local lower, upper, limit, records, aliases = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local reply = {}
local names = redis.call('ZRANGE', KEYS[1], lower, upper, 'BYLEX', 'LIMIT', 0, limit)
if #names == 0 then return reply end
local sharing = redis.call('HMGET', KEYS[2], unpack(names))
for i, name in ipairs(names) do
  local version = redis.call('HGET', aliases .. name, 'latest')
  reply[#reply + 1] = name
  reply[#reply + 1] = version
  reply[#reply + 1] = redis.call('HGET', records .. name, version)
  reply[#reply + 1] = sharing[i] or ''
  reply[#reply + 1] = redis.call('HGETALL', aliases .. name)
end
return reply
