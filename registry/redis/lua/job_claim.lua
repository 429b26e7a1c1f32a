-- Give a queued job to a worker under a new fence; earlier claims are refused from now on. Its process
-- begins by checking its files.
--
-- KEYS  job events
-- ARGV  id state_prefix now worker max_events
-- Returns {'claimed', {field, value...}} | {'state', state or ''}.
local job, events = KEYS[1], KEYS[2]
local id, state_prefix, now, worker, max_events = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]

local state = redis.call('HGET', job, 'state')
if state ~= 'queued' then return {'state', state or ''} end

redis.call('HINCRBY', job, 'fence', 1)
local attempt = redis.call('HINCRBY', job, 'attempts', 1)
redis.call('HSETNX', job, 'started_at', now)
redis.call('HSET', job, 'state', 'validating_files', 'worker', worker, 'beats', 0, 'reports', 0)
redis.call('ZREM', state_prefix .. 'queued', id)
redis.call('ZADD', state_prefix .. 'validating_files', redis.call('HGET', job, 'created_at'), id)
redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'created_at', now, 'level', 'info',
  'message', 'Attempt ' .. attempt .. ' begins on ' .. worker, 'type', 'message',
  'data', cjson.encode({from = 'queued', to = 'validating_files'}))
return {'claimed', redis.call('HGETALL', job)}
