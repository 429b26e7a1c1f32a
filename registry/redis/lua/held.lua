-- How much a tenant has of what limits count: the one place where that is counted. Stands before
-- scripts that check a limit or tell what is used.
--
-- Sums of bytes are kept for an hour after they were counted, and follow what is added and removed
-- meanwhile: only the count that begins such an hour reads every file, or every version.
--
-- Work: constant, but for that count.
local OPEN_JOBS = {'validating_files', 'queued', 'running', 'paused'}
local KEPT_SUM_S = 3600
local held = {}

-- The key of an index's sum: the index's own with `bytes:` behind the hash tag.
local function sum_of(index)
  return (string.gsub(index, '}:', '}:bytes:', 1))
end

-- Return an index's sum; `keeps` it if it was counted: not where something is only read.
local function kept(index, keeps, count)
  local sum = redis.call('GET', sum_of(index))
  if sum then return tonumber(sum) end
  sum = count()
  if keeps then redis.call('SET', sum_of(index), string.format('%.0f', sum), 'EX', KEPT_SUM_S) end
  return sum
end

-- Add to what an index's entries hold; `bytes` is below zero where something was removed.
function held.grow(index, bytes)
  local key = sum_of(index)
  if redis.call('EXISTS', key) == 1 then redis.call('INCRBY', key, string.format('%.0f', bytes)) end
end

-- Count an index's bytes anew when they are asked for next.
function held.forget_sum(index)
  redis.call('DEL', sum_of(index))
end

function held.record_bytes(record)
  return cjson.decode(string.match(record, '\n(.*)$')).size_bytes
end

function held.files(files_of_tenant)
  return redis.call('ZCARD', files_of_tenant)
end

function held.file_bytes(files_of_tenant, files, keeps)
  return kept(files_of_tenant, keeps, function()
    local sum = 0
    for _, id in ipairs(redis.call('ZRANGE', files_of_tenant, 0, -1)) do
      local body = redis.call('HGET', files, id)
      if body then sum = sum + cjson.decode(body).size_bytes end
    end
    return sum
  end)
end

function held.adapters(names)
  return redis.call('ZCARD', names)
end

-- Of coefficients, in all versions.
function held.adapter_bytes(names, records_prefix, keeps)
  return kept(names, keeps, function()
    local sum = 0
    for _, name in ipairs(redis.call('ZRANGE', names, 0, -1)) do
      for _, record in ipairs(redis.call('HVALS', records_prefix .. name)) do
        sum = sum + held.record_bytes(record)
      end
    end
    return sum
  end)
end

function held.jobs(jobs_of_tenant, state_prefix)
  local sum = 0
  for _, state in ipairs(OPEN_JOBS) do
    sum = sum + redis.call('ZINTERCARD', 2, jobs_of_tenant, state_prefix .. state)
  end
  return sum
end

-- Whether a limit ('' for none) does not let so many more in.
local function is_over(limit, used, more)
  return limit ~= '' and used + more > tonumber(limit)
end

