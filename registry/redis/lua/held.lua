-- How much a tenant has of what limits count: the one place where that is counted. Stands before
-- scripts that check a limit or tell what is used.
--
-- Work: of bytes the tenant's files, or its adapters' versions; of all else constant.
local OPEN_JOBS = {'validating_files', 'queued', 'running', 'paused'}
local held = {}

function held.files(files_of_tenant)
  return redis.call('ZCARD', files_of_tenant)
end

function held.file_bytes(files_of_tenant, files)
  local sum = 0
  for _, id in ipairs(redis.call('ZRANGE', files_of_tenant, 0, -1)) do
    local body = redis.call('HGET', files, id)
    if body then sum = sum + cjson.decode(body).size_bytes end
  end
  return sum
end

function held.adapters(names)
  return redis.call('ZCARD', names)
end

-- Of coefficients, in all versions.
function held.adapter_bytes(names, records_prefix)
  local sum = 0
  for _, name in ipairs(redis.call('ZRANGE', names, 0, -1)) do
    for _, record in ipairs(redis.call('HVALS', records_prefix .. name)) do
      sum = sum + cjson.decode(string.match(record, '\n(.*)$')).size_bytes
    end
  end
  return sum
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

