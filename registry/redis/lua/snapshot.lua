-- Read every key of a prefix at one moment.
--
-- KEYS  any of them
-- ARGV  pattern
-- Returns {now in ms, {key, type, expires at in ms | -1, content, last id of a stream}...}.
-- Work: all that is stored; nothing else is answered meanwhile.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local read = {}

function read.string(key) return redis.call('GET', key) end
function read.hash(key) return redis.call('HGETALL', key) end
function read.list(key) return redis.call('LRANGE', key, 0, -1) end
function read.set(key) return redis.call('SMEMBERS', key) end
function read.zset(key) return redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') end

function read.stream(key)
  local facts = redis.call('XINFO', 'STREAM', key)
  for i = 1, #facts, 2 do
    if facts[i] == 'last-generated-id' then
      return redis.call('XRANGE', key, '-', '+'), facts[i + 1]
    end
  end
end

local found = {now}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  local kind, left = redis.call('TYPE', key).ok, redis.call('PTTL', key)
  local entry = {key, kind, left < 0 and -1 or now + left}
  if read[kind] then entry[4], entry[5] = read[kind](key) end
  found[#found + 1] = entry
end
return found
