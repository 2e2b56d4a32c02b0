-- The results of Celery's tasks.

-- Keep that a task succeeded, and tell who waits for it; unless a success is kept already, or what is kept cannot be
-- read.
-- KEYS: result
-- ARGV: text, keep_seconds
-- Returns whether it is kept now.
local function keep_success()
  local known = redis.pcall('GET', KEY.result)
  if known then
    local is_read, meta = pcall(cjson.decode, known)
    if not is_read or type(meta) ~= 'table' or meta.status == 'SUCCESS' then return 0 end
  end
  redis.call('SET', KEY.result, ARG.text, 'EX', ARG.keep_seconds)
  redis.call('PUBLISH', KEY.result, ARG.text)
  return 1
end
