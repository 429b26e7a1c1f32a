-- Write a new job's record, if its files are there; hold the files until it is final.
--
-- KEYS  job events jobs files names
-- ARGV  id state_prefix tenant_prefix users_prefix created_at state tenant spec
--       adapter; limits('' for none): jobs adapters; file...
-- Returns {'created' | 'exists', {field, value...}} | {'no_file', file} |
-- {'full', limit, used}.
local job, events, jobs, files, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, state_prefix, tenant_prefix, users_prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local created_at, state, tenant, spec = ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local adapter, max_jobs, max_adapters, FIRST = ARGV[9], ARGV[10], ARGV[11], 12

if redis.call('EXISTS', job) == 1 then return {'exists', redis.call('HGETALL', job)} end
for i = FIRST, #ARGV do
  if redis.call('HEXISTS', files, ARGV[i]) == 0 then return {'no_file', ARGV[i]} end
end
if max_jobs ~= '' then
  local used = held.jobs(tenant_prefix .. tenant, state_prefix)
  if is_over(max_jobs, used, 1) then return {'full', 'jobs', used} end
end
if not redis.call('ZSCORE', names, adapter) then
  local used = held.adapters(names)
  if is_over(max_adapters, used, 1) then return {'full', 'adapters', used} end
end

redis.call('HSET', job, 'spec', spec, 'state', state, 'created_at', created_at)
for i = FIRST, #ARGV do
  redis.call('SADD', users_prefix .. ARGV[i], id)
  redis.call('HSET', job, 'file:' .. (i - FIRST + 1), ARGV[i])
end
redis.call('ZADD', jobs, created_at, id)
redis.call('ZADD', tenant_prefix .. tenant, created_at, id)
redis.call('ZADD', state_prefix .. state, created_at, id)
redis.call('XADD', events, '*', 'created_at', created_at, 'level', 'info',
  'message', 'The job was created', 'type', 'message', 'data', '{}')
return {'created', redis.call('HGETALL', job)}
