-- Take a heartbeat of a batch's holder, or take the batch back from it; return the batch's state.
--
-- KEYS  batch
-- ARGV  op('beat' | 'release') fence, then field, value...
-- Returns {state}, or {} if there is no such batch or the fence is an older claim's.
local batch, op, fence = KEYS[1], ARGV[1], ARGV[2]
local state = redis.call('HGET', batch, 'state')
if not state or redis.call('HGET', batch, 'fence') ~= fence then return {} end
redis.call('HINCRBY', batch, 'beats', 1)
for i = 3, #ARGV, 2 do redis.call('HSET', batch, ARGV[i], ARGV[i + 1]) end
if op == 'release' then redis.call('HSET', batch, 'owner', '') end
return {state}
