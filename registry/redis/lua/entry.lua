-- Read a name's latest record and all its aliases at one moment.
--
-- KEYS  records versions by_digest aliases | sharing
-- ARGV  name
-- Returns {version, body, sharing('' for none), alias, version, alias, version...} | {}.
local latest = redis.call('HGET', KEYS[4], 'latest')
if not latest then return {} end
local sharing = redis.call('HGET', KEYS[5], ARGV[1]) or ''
local reply = {latest, redis.call('HGET', KEYS[1], latest), sharing}
for _, each in ipairs(redis.call('HGETALL', KEYS[4])) do reply[#reply + 1] = each end
return reply
