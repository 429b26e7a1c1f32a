-- Tell whether any record refers to a digest.
--
-- KEYS  digests
-- ARGV  digest
-- Returns 1 | 0.
return redis.call('HEXISTS', KEYS[1], ARGV[1])
