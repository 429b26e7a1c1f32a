-- Tell how much a tenant has of what is limited.
--
-- KEYS  files files_of_tenant jobs_of_tenant
-- ARGV  state_prefix
-- Returns {files, bytes of files, open jobs}; bytes as text.
local files, files_of, jobs_of = KEYS[1], KEYS[2], KEYS[3]
return {held.files(files_of), string.format('%.0f', held.file_bytes(files_of, files)),
  held.jobs(jobs_of, ARGV[1])}
