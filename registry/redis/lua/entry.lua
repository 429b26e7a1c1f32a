-- Read a name's latest record and all its aliases at one moment.
--
-- KEYS  records versions by_digest aliases
-- Returns {version, body, alias, version, alias, version...} | {}.
local latest = redis.call('HGET', KEYS[4], 'latest')
if not latest then return {} end
local reply = {latest, redis.call('HGET', KEYS[1], latest)}
for _, each in ipairs(redis.call('HGETALL', KEYS[4])) do reply[#reply + 1] = each end
return reply
