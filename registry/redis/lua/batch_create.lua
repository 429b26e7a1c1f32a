-- Write a new batch's record, if its file is there; hold the file until the batch is over.
--
-- KEYS  batch batches files
-- ARGV  id in_state of_tenant open_of_base file_users created_at expires_at state total file spec
-- Returns {'created', {field, value...}} | {'no_file', file}.
local batch, batches, files = KEYS[1], KEYS[2], KEYS[3]
local id, in_state, of_tenant, open, users = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local created_at, expires_at, state = ARGV[6], ARGV[7], ARGV[8]
local total, file, spec = ARGV[9], ARGV[10], ARGV[11]

if redis.call('HEXISTS', files, file) == 0 then return {'no_file', file} end
redis.call('HSET', batch, 'spec', spec, 'state', state, 'created_at', created_at,
  'expires_at', expires_at, 'total', total, 'fence', 0, 'beats', 0, 'owner', '')
redis.call('SADD', users, id)
for _, index in ipairs({batches, in_state, of_tenant, open}) do
  redis.call('ZADD', index, created_at, id)
end
return {'created', redis.call('HGETALL', batch)}
