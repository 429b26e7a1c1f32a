-- Tell how much a tenant has of what is limited.
--
-- KEYS  files files_of_tenant jobs_of_tenant names
-- ARGV  state_prefix records_prefix
-- Returns {adapters, bytes of adapters, files, bytes of files, open jobs}; bytes as text.
local files, files_of, jobs_of, names = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
return {held.adapters(names), string.format('%.0f', held.adapter_bytes(names, ARGV[2])),
  held.files(files_of), string.format('%.0f', held.file_bytes(files_of, files)),
  held.jobs(jobs_of, ARGV[1])}
