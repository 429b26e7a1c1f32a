-- Give a batch to a server under a new fence, if nothing has happened since it was read; earlier
-- claims are refused from now on.
--
-- KEYS  batch
-- ARGV  owner fence beats (as they were read)
-- Returns {'claimed', {field, value...}} | {'no', state or ''}.
local batch = KEYS[1]
local state, fence, beats = unpack(redis.call('HMGET', batch, 'state', 'fence', 'beats'))
local final = {completed = true, failed = true, expired = true, cancelled = true}
if not state or final[state] or fence ~= ARGV[2] or beats ~= ARGV[3] then
  return {'no', state or ''}
end
redis.call('HINCRBY', batch, 'fence', 1)
redis.call('HSET', batch, 'owner', ARGV[1], 'beats', 0)
return {'claimed', redis.call('HGETALL', batch)}
