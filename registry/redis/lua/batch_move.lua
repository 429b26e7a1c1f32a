-- Move a batch to another state, if its present one allows it and the fence is the holder's; its
-- files get their records with it.
--
-- KEYS  batch files files_order
-- ARGV  id now to from(comma-separated) fence('' for any) final('1' | '0')
--       state_prefix open_of_base file_users files_of_tenant
--       number of files, then of each: id created_at body; then field, value...: set beside it
-- A batch that no server has ever claimed is cancelled at once.
-- Returns {'moved' | 'already', {field, value...}} | {'missing'} | {'state', state} | {'fence'}.
local batch, files, files_order = KEYS[1], KEYS[2], KEYS[3]
local id, now, to, from, fence, final = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6] == '1'
local state_prefix, open, users, files_of = ARGV[7], ARGV[8], ARGV[9], ARGV[10]

local state = redis.call('HGET', batch, 'state')
if not state then return {'missing'} end
local current = redis.call('HGET', batch, 'fence')
if fence ~= '' and fence ~= current then return {'fence'} end
if state == to then return {'already', redis.call('HGETALL', batch)} end
if not string.find(',' .. from .. ',', ',' .. state .. ',', 1, true) then return {'state', state} end

redis.call('HSET', batch, 'at:' .. to, now)
if to == 'cancelling' and current == '0' then
  to, final = 'cancelled', true
  redis.call('HSET', batch, 'at:' .. to, now)
end
redis.call('HSET', batch, 'state', to)
local at = 12
for _ = 1, tonumber(ARGV[11]) do
  redis.call('HSET', files, ARGV[at], ARGV[at + 2])
  redis.call('ZADD', files_order, ARGV[at + 1], ARGV[at])
  redis.call('ZADD', files_of, ARGV[at + 1], ARGV[at])
  at = at + 3
end
if at > 12 then held.forget_sum(files_of) end
for i = at, #ARGV, 2 do redis.call('HSET', batch, ARGV[i], ARGV[i + 1]) end
redis.call('ZREM', state_prefix .. state, id)
redis.call('ZADD', state_prefix .. to, redis.call('HGET', batch, 'created_at'), id)
if final then
  redis.call('HSET', batch, 'owner', '')
  redis.call('ZREM', open, id)
  redis.call('SREM', users, id)
end
return {'moved', redis.call('HGETALL', batch)}
