-- Note that a worker is alive or has left, or list those that are alive, by the server's own clock.
--
-- KEYS  workers seen
-- ARGV  'beat' | 'leave' | 'list', alive_s, then name (not to list), body (of a beat)
-- Returns {body...} to list, else {}.
local workers, seen = KEYS[1], KEYS[2]
local op, alive_s, name, body = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

if op == 'list' then
  local names = redis.call('ZRANGE', seen, now - alive_s, '+inf', 'BYSCORE')
  if #names == 0 then return {} end
  return redis.call('HMGET', workers, unpack(names))
end
if op == 'leave' then
  redis.call('HDEL', workers, name)
  redis.call('ZREM', seen, name)
  return {}
end
for _, gone in ipairs(redis.call('ZRANGE', seen, '-inf', now - 10 * alive_s, 'BYSCORE')) do
  redis.call('HDEL', workers, gone)
  redis.call('ZREM', seen, gone)
end
redis.call('HSET', workers, name, body)
redis.call('ZADD', seen, now, name)
return {}
