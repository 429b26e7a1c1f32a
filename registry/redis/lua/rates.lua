-- Take parts of a tenant's rates for one server: all that is needed, or nothing.
--
-- Two buckets, of requests and of tokens, hold a minute's worth and refill evenly; a bucket may be
-- below zero, after answers that were longer than was left. Permits to run belong to a server until
-- it gives them back, or is silent for too long.
--
-- KEYS  rates
-- ARGV  server('' only reads) now('' for this clock) kept_s permits(that the server holds)
--       limits('' for none): requests tokens permits
--       needed: requests tokens permits    most(below 0: given back): requests tokens permits
--       owed_tokens
-- Returns {1 if granted, requests, tokens, permits: granted; levels of requests and tokens after;
--          permits of all servers, servers}; numbers as text.
local rates = KEYS[1]
local server, now, kept_s, own_permits = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local function list(first) return {ARGV[first], ARGV[first + 1], ARGV[first + 2]} end
local limits, needed, most, owed = list(5), list(8), list(11), tonumber(ARGV[14])
local NEARLY = 1e-6

if now == '' then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1e6
else
  now = tonumber(now)
end

local known = {}
local stored = redis.call('HGETALL', rates)
for i = 1, #stored, 2 do known[stored[i]] = stored[i + 1] end
local at = tonumber(known.at or now)
local all_permits, num_servers = own_permits, 0
for name, value in pairs(known) do
  local id = string.match(name, '^server:(.*)$')
  if id then
    local permits, seen = string.match(value, '^(%S+) (%S+)$')
    if tonumber(seen) + kept_s < now then
      if server ~= '' then redis.call('HDEL', rates, name) end
    elseif id ~= server then
      all_permits, num_servers = all_permits + tonumber(permits), num_servers + 1
    end
  end
end

-- What there is of requests, tokens and permits; nil where there is no limit.
local names, levels = {'requests', 'tokens'}, {}
for i, name in ipairs(names) do
  local limit = tonumber(limits[i])
  if limit then
    local level = tonumber(known[name] or limit) + math.max(0, now - at) * limit / 60
    levels[i] = math.min(limit, level)
  end
end
if levels[2] then levels[2] = levels[2] - owed end
if tonumber(limits[3]) then levels[3] = tonumber(limits[3]) - all_permits end

local enough = 1
for i = 1, 3 do
  local need = tonumber(needed[i])
  if levels[i] and need > 0 and need > levels[i] + NEARLY then enough = 0 end
end
local granted = {0, 0, 0}
for i = 1, 3 do
  local wanted = math.max(tonumber(most[i]), tonumber(needed[i]))
  if levels[i] and tonumber(most[i]) < 0 then
    granted[i] = tonumber(most[i])
  elseif levels[i] and enough == 1 then
    granted[i] = math.max(0, math.min(wanted, math.floor(levels[i] + NEARLY)))
  end
  if levels[i] then levels[i] = levels[i] - granted[i] end
  if levels[i] and i < 3 then levels[i] = math.min(tonumber(limits[i]), levels[i]) end
end

if server ~= '' then
  local longest = 0
  for i, name in ipairs(names) do
    local limit = tonumber(limits[i])
    if limit then
      redis.call('HSET', rates, name, string.format('%.17g', levels[i]))
      if limit > 0 then longest = math.max(longest, (limit - levels[i]) * 60 / limit) end
    else
      redis.call('HDEL', rates, name)
    end
  end
  own_permits = math.max(0, own_permits + granted[3])
  redis.call('HSET', rates, 'at', string.format('%.17g', math.max(at, now)),
    'server:' .. server, string.format('%.17g %.17g', own_permits, now))
  redis.call('EXPIRE', rates, math.ceil(kept_s + longest) + 1)
  num_servers = num_servers + 1
end

local reply = {enough}
for i = 1, 3 do reply[i + 1] = string.format('%.17g', granted[i]) end
for i = 1, 2 do reply[i + 4] = string.format('%.17g', levels[i] or 0) end
reply[7] = string.format('%.17g', all_permits + granted[3])
reply[8] = tostring(num_servers)
return reply
