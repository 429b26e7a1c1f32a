-- Read the latest records and the aliases of the next names in lexical order, at one moment.
--
-- KEYS  an index of names
-- ARGV  lower upper (as ZRANGE BYLEX takes them) limit records_prefix aliases_prefix
-- Returns {name, version, body, {alias, version, ...}, name, ...}.
-- Work: the page, however many names there are.
local lower, upper, limit, records, aliases = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local reply = {}
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], lower, upper, 'BYLEX', 'LIMIT', 0, limit)) do
  local version = redis.call('HGET', aliases .. name, 'latest')
  reply[#reply + 1] = name
  reply[#reply + 1] = version
  reply[#reply + 1] = redis.call('HGET', records .. name, version)
  reply[#reply + 1] = redis.call('HGETALL', aliases .. name)
end
return reply
