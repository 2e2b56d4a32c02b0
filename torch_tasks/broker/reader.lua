-- What a text on the broker says, written by any program; an error in a script would stop the process that runs it.

-- The object in a JSON text; nil if there is none.
local function object_in(text)
  local is_json, value = pcall(cjson.decode, text)
  return is_json and type(value) == 'table' and value or nil
end
