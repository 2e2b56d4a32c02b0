-- What a text on the broker says, whoever wrote it; an error in a script would stop whoever runs it.

-- The object in a JSON text; nil if there is none.
local function object_in(text)
  local is_json, value = pcall(cjson.decode, text)
  return is_json and type(value) == 'table' and value or nil
end
