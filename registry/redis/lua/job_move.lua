-- Move a job to another state, if its present one allows it and the fence is the holder's.
--
-- KEYS  job events metrics checkpoints samples
-- ARGV  id state_prefix users_prefix now to from(comma-separated) fence('' for any)
--       beats('' for any) kept_s max_events level message('' for no event)
--       then field, value...: set beside it
-- Returns {'moved' | 'already', {field, value...}} | {'missing'} | {'state', state} | {'fence'} |
--         {'published'} (too late to cancel).
local job, events = KEYS[1], KEYS[2]
local id, state_prefix, users_prefix, now, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local from, fence, beats, kept_s = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local max_events, level, message = ARGV[10], ARGV[11], ARGV[12]
local final = to == 'succeeded' or to == 'failed' or to == 'cancelled'

local function has(list, wanted)
  return string.find(',' .. list .. ',', ',' .. wanted .. ',', 1, true) ~= nil
end

local state = redis.call('HGET', job, 'state')
if not state then return {'missing'} end
if fence ~= '' and fence ~= (redis.call('HGET', job, 'fence') or '0') then return {'fence'} end
if state == to then return {'already', redis.call('HGETALL', job)} end
if not has(from, state) then return {'state', state} end
if beats ~= '' and beats ~= redis.call('HGET', job, 'beats') then return {'fence'} end
if to == 'cancelled' and redis.call('HEXISTS', job, 'version') == 1 then return {'published'} end

redis.call('HSET', job, 'state', to)
for i = 13, #ARGV, 2 do redis.call('HSET', job, ARGV[i], ARGV[i + 1]) end
redis.call('ZREM', state_prefix .. state, id)
redis.call('ZADD', state_prefix .. to, redis.call('HGET', job, 'created_at'), id)
if message ~= '' then
  redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'created_at', now, 'level', level,
    'message', message, 'type', 'message', 'data', cjson.encode({from = state, to = to}))
end
if final then
  redis.call('HSET', job, 'finished_at', now)
  for _, field in ipairs({'file:1', 'file:2'}) do
    local file = redis.call('HGET', job, field)
    if file then redis.call('SREM', users_prefix .. file, id) end
  end
  for i = 2, 5 do redis.call('EXPIRE', KEYS[i], kept_s) end
end
return {'moved', redis.call('HGETALL', job)}
