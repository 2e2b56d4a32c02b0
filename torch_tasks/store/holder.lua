-- Whether another process, which may well live, has a name: that of an agent or of a node.

local function is_anothers(entry, silent_ms)
  if not entry or ARG.holder_is_gone == '1' then return false end
  local holder = cjson.decode(entry)
  if holder.host == ARG.host and tostring(holder.pid) == ARG.pid then return false end
  return not holder.left and silent_ms < tonumber(ARG.offline_ms)
end
