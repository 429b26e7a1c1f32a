-- Hand a record to another tenant, if it is still there as it was read.
--
-- KEYS  hash, old tenant's index, new tenant's index
-- ARGV  field old_body('' for a record that is gone) new_body id
-- Returns 1 if it was handed over, else 0; a record that is gone leaves the old index.
local hash, old, new = KEYS[1], KEYS[2], KEYS[3]
local field, was, body, id = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local stored = redis.call('HGET', hash, field)
local score = redis.call('ZSCORE', old, id)
if not score then return 0 end
if not stored then
  redis.call('ZREM', old, id)
  return 0
end
if stored ~= was then return 0 end
redis.call('HSET', hash, field, body)
redis.call('ZADD', new, score, id)
redis.call('ZREM', old, id)
held.forget_sum(old)
held.forget_sum(new)
return 1
