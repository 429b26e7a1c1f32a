-- Read live versions of a name, from the oldest on.
--
-- KEYS  records versions by_digest aliases
-- ARGV  after limit(-1 for all)
-- Returns {'found', version, body, version, body...} | {} (no such name).
-- Work: the page, and the logarithm of the number of versions.
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local after, limit = ARGV[1], ARGV[2]
local reply = {'found'}
local found = redis.call('ZRANGE', KEYS[2], '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, limit)
for _, version in ipairs(found) do
  reply[#reply + 1] = version
  reply[#reply + 1] = redis.call('HGET', KEYS[1], version)
end
return reply
