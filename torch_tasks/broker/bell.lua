-- Wake one process that waits at KEY.bell. If none waits, the bell is forgotten after a while. Needs BELL_LENGTH, BELL_MS.

local function ring()
  if type(redis.pcall('LPUSH', KEY.bell, '')) == 'table' then  -- no list, so no bell of ours
    redis.call('DEL', KEY.bell)
    redis.call('LPUSH', KEY.bell, '')
  end
  redis.call('LTRIM', KEY.bell, 0, BELL_LENGTH - 1)
  redis.call('PEXPIRE', KEY.bell, BELL_MS)
end
