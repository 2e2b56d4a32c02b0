-- Tell who waits for this record, and who watches the fleet, that it has another state.

local function tell(record_key, state)
  redis.call('PUBLISH', record_key, state)
  -- pcall: no key of a wrong type here may keep a task from going on
  redis.pcall('XADD', KEY.notices, 'MAXLEN', '~', 20000, '*', 'record', record_key, 'state', state)
end
