-- What changes holds; one is kept as JSON, with a revision that grows with each change of its scope.
-- WITH: clock, reader

local function decoded(scope)
  local text = redis.call('HGET', KEY.holds, scope)
  local hold = text and object_in(text)
  return hold and type(hold.revision) == 'number' and hold
end

-- Hold a scope, or lift its hold.
-- KEYS: holds
-- ARGV: scope, hold
-- Returns the revision, or 0 if there is nothing to lift.
local function put()
  local former, hold = decoded(ARG.scope), cjson.decode(ARG.hold)
  if hold.lifted and (not former or former.lifted) then return 0 end
  hold.revision = math.max(now, former and former.revision + 1 or 0)
  redis.call('HSET', KEY.holds, ARG.scope, cjson.encode(hold))
  return hold.revision
end

-- Put a hold in the place of another one.
-- KEYS: holds
-- ARGV: scope, revision, hold
-- Returns the new revision, or 0 if another one is there.
local function replace()
  local former, hold = decoded(ARG.scope), cjson.decode(ARG.hold)
  if not former or former.revision ~= tonumber(ARG.revision) then return 0 end
  hold.revision = math.max(now, former.revision + 1)
  redis.call('HSET', KEY.holds, ARG.scope, cjson.encode(hold))
  return hold.revision
end

-- Put holds back, unless the broker knows later ones.
-- KEYS: holds
-- ARGV: *scopes_and_holds
local function restore()
  for i = 1, #ARG.scopes_and_holds, 2 do
    local scope, text = ARG.scopes_and_holds[i], ARG.scopes_and_holds[i + 1]
    local former = decoded(scope)
    if not former or former.revision < cjson.decode(text).revision then redis.call('HSET', KEY.holds, scope, text) end
  end
end
