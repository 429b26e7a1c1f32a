-- Store a report of a job's process or its worker; return the job's state.
--
-- KEYS  job events metrics checkpoints samples totals
-- ARGV  fence number('' for a heartbeat alone) max_events max_metrics max_sampled
--       then entries: kind, number of words, words...
--         event: created_at level message type data   metrics: step created_at name value...
--         checkpoint: step name created_at            progress: step num_steps seconds_left
--         samples: step json
-- Reports of one fence are numbered from 1: one that was taken already is not taken twice.
-- Returns {state, fence}, or {} if there is no such job. Nothing is taken from an older fence.
local job, events, metrics, checkpoints = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local samples, totals = KEYS[5], KEYS[6]
local fence, number, max_events, max_metrics = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local max_sampled = ARGV[5]
local take = {}

function take.event(words)
  redis.call('XADD', events, 'MAXLEN', '~', max_events, '*', 'created_at', words[1],
    'level', words[2], 'message', words[3], 'type', words[4], 'data', words[5])
end

-- A step's place is its number. What an earlier attempt has measured at it stays, and its tokens
-- are counted once.
function take.metrics(words)
  local step, known, new = words[1], {}, {}
  for _, entry in ipairs(redis.call('XRANGE', metrics, step, step)) do
    for i = 1, #entry[2], 2 do known[entry[2][i]] = true end
  end
  for i = 3, #words, 2 do
    if not known[words[i]] then
      new[#new + 1] = words[i]
      new[#new + 1] = words[i + 1]
    end
  end
  if #new == 0 then return end
  local done = redis.pcall('XADD', metrics, 'MAXLEN', '~', max_metrics, step .. '-*',
    'created_at', words[2], unpack(new))
  if type(done) == 'table' and done.err then return end -- behind the end of what is there
  for i = 1, #new, 2 do
    if new[i] == 'train_loss' then redis.call('HSET', totals, 'loss', new[i + 1]) end
    if new[i] == 'tokens' then
      local tokens = string.format('%d', tonumber(new[i + 1]))
      redis.call('HINCRBY', job, 'trained_tokens', tokens)
      redis.call('HINCRBY', totals, 'tokens', tokens)
    end
  end
end

function take.checkpoint(words)
  redis.pcall('XADD', checkpoints, 'MAXLEN', '~', max_events, words[1] .. '-1',
    'name', words[2], 'created_at', words[3])
  redis.call('HSET', job, 'failures', 0)
end

-- What an earlier attempt has answered at a step stays.
function take.samples(words)
  redis.pcall('XADD', samples, 'MAXLEN', max_sampled, words[1] .. '-1', 'samples', words[2])
end

function take.progress(words)
  local top = tonumber(redis.call('HGET', job, 'top_step') or '0')
  if tonumber(words[1]) > top then
    redis.call('HSET', job, 'top_step', words[1])
    redis.call('HINCRBY', totals, 'steps', tonumber(words[1]) - top)
  end
  redis.call('HSET', job, 'step', words[1], 'num_steps', words[2], 'seconds_left', words[3])
end

local state = redis.call('HGET', job, 'state')
if not state then return {} end
local current = redis.call('HGET', job, 'fence') or '0'
if current ~= fence or state == 'queued' then return {state, current} end
redis.call('HINCRBY', job, 'beats', 1)
if number == '' or tonumber(number) <= tonumber(redis.call('HGET', job, 'reports')) then
  return {state, current}
end
redis.call('HSET', job, 'reports', number)

local at = 6
while at <= #ARGV do
  local kind, count = ARGV[at], tonumber(ARGV[at + 1])
  local words = {}
  for i = 1, count do words[i] = ARGV[at + 1 + i] end
  take[kind](words)
  at = at + 2 + count
end
return {state, current}
