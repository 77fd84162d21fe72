-- What the generated programs use, the same for both implementations; then a row of programs, each run by itself.
local real_print, format, gsub, byte, next, type, math_type = print, string.format, string.gsub, string.byte, next, type, math.type
local load, setmetatable, pcall, error, select, sort, concat, tostring = load, setmetatable, pcall, error, select, table.sort, table.concat, tostring
local rawget, getmetatable, sub, ult = rawget, getmetatable, string.sub, math.ult

local function text(s)
  return (gsub(s, "[%c\128-\255\\]", function(c) return format("\\%03d", byte(c)) end))
end

local function show(v, deep)
  local kind = type(v)
  if math_type(v) == "float" then
    return v ~= v and "nan" or format("%.14g", v) .. "f"
  elseif kind == "number" or kind == "boolean" or kind == "nil" then
    return tostring(v)
  elseif kind == "string" then
    return "'" .. text(v) .. "'"
  elseif kind == "table" and deep then
    local numbers, strings = {}, {}
    for k in next, v do
      if math_type(k) == "integer" then numbers[#numbers + 1] = k elseif type(k) == "string" then strings[#strings + 1] = k end
    end
    sort(numbers)
    sort(strings)
    local parts = {}
    for i = 1, #numbers do if i <= 8 then parts[#parts + 1] = "[" .. numbers[i] .. "]=" .. show(rawget(v, numbers[i])) end end
    for i = 1, #strings do if i <= 8 then parts[#parts + 1] = text(strings[i]) .. "=" .. show(rawget(v, strings[i])) end end
    return "{" .. concat(parts, " ") .. "}"
  end
  return kind
end

local functions, loops = 0, 0
local globals = {
  P = function(...)
    local parts = {}
    for i = 1, select("#", ...) do parts[i] = show((select(i, ...)), true) end
    real_print(concat(parts, " "))
  end,
  T = function()
    functions = functions + 1
    if functions > 120 then error("out of fuel", 0) end
  end,
  L = function()
    loops = loops + 1
    if loops > 1500 then error("out of fuel", 0) end
  end,
  -- A string that is stored is cut.
  S = function(...)
    local v = ...
    if type(v) == "string" and #v > 40 then return sub(v, 1, 40) end
    return v
  end,
  R = function(v) return v end,
  -- The integers of a list, in order, without the rest.
  Ints = function(l)
    local out = {}
    if type(l) ~= "table" then return out end
    for i = 1, 20 do
      local v = rawget(l, i)
      if math_type(v) == "integer" then out[#out + 1] = v end
    end
    return out
  end,
  -- The fields with strings as keys, in the order of the keys.
  Sorted = function(t)
    local keys, at = {}, 0
    if type(t) == "table" then for k in next, t do if type(k) == "string" then keys[#keys + 1] = k end end end
    sort(keys)
    return function()
      at = at + 1
      if keys[at] ~= nil then return keys[at], rawget(t, keys[at]) end
    end
  end,
}
local P = globals.P
globals.Closing = function(tag) return setmetatable({}, {__close = function(_, e) P("close", tag, e) end}) end
local object = {}
local function value(o) if type(o) == "table" then return rawget(o, "x") end return o end
local function make(x) return setmetatable({x = x}, object) end
object.__add = function(a, b) return make(value(a) + value(b)) end
object.__sub = function(a, b) return make(value(a) - value(b)) end
object.__mul = function(a, b) return make(value(a) * value(b)) end
object.__idiv = function(a, b) return make(value(a) // value(b)) end
object.__unm = function(a) return make(-value(a)) end
object.__bnot = function(a) return make(~value(a)) end
object.__band = function(a, b) return make(value(a) & value(b)) end
object.__concat = function(a, b) return make(1) end
object.__eq = function(a, b) return value(a) == value(b) end
object.__lt = function(a, b) return value(a) < value(b) end
object.__le = function(a, b) return value(a) <= value(b) end
object.__len = function(a) return 7 end
object.__index = function(a, k) if k == "double" then return value(a) * 2 end end
object.__call = function(self, a, b) return value(self), a, b end
object.__name = "Object"
object.__tostring = function(a) return "object " .. show(rawget(a, "x")) end
globals.Object = make

local function run(number, source)
  functions, loops = 0, 0
  local environment = setmetatable({}, {__index = function(_, k) local v = globals[k] if v == nil then return _G[k] end return v end})
  real_print("@@ " .. number)
  local f = load(source, "=p", "t", environment)
  if not f then real_print("does not compile") return end
  P("ends", pcall(f))
end

