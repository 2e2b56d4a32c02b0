-- The time by the broker's clock, the one that all machines share: `now` in milliseconds, `now_us` in microseconds.

local seconds_and_us = redis.call('TIME')
local now = seconds_and_us[1] * 1000 + math.floor(seconds_and_us[2] / 1000)
local now_us = seconds_and_us[1] * 1000000 + seconds_and_us[2]
