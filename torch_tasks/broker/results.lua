-- The results of Celery's tasks.

-- Keep the first that is said of a task, and tell who waits for it; whether it was the first.
-- KEYS: result
-- ARGV: text, keep_seconds
local function keep_first()
  if not redis.call('SET', KEY.result, ARG.text, 'EX', ARG.keep_seconds, 'NX') then return 0 end
  redis.call('PUBLISH', KEY.result, ARG.text)
  return 1
end
