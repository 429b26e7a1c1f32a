-- Read all live versions of a name.
--
-- KEYS  records versions by_digest aliases
-- Returns {version, body, version, body...}, in no order.
return redis.call('HGETALL', KEYS[1])
