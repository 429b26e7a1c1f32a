-- Read jobs, or files, of an index from the newest on.
--
-- KEYS  index
-- ARGV  job_prefix('' for ids only) after('' for the beginning) limit
-- Returns {id, {field, value...}, id, ...} | {'missing'} (no such `after`).
-- Work: the page, and the logarithm of the index.
local job_prefix, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local start, reply = 0, {}
if after ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], after)
  if not rank then return {'missing'} end
  start = rank + 1
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], start, start + limit - 1, 'REV')) do
  reply[#reply + 1] = id
  reply[#reply + 1] = job_prefix == '' and '' or redis.call('HGETALL', job_prefix .. id)
end
return reply
