-- Strings, tables and recursion: a JSON encoder and decoder. A document of n records is encoded, decoded, encoded again.
-- Prints the length of the text, a checksum of it, and whether both texts agree.
-- small 10: 1739 9335978 true
local n = tonumber((...)) or 9000

local concat, format = table.concat, string.format

-- Encoder. A table with something at 1 is an array; keys of objects come sorted.

local escapes = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\b"] = "\\b", ["\f"] = "\\f" }

local function quoted(text)
  return '"' .. text:gsub('[%c"\\]', function(c) return escapes[c] or format("\\u%04x", c:byte()) end) .. '"'
end

local write

local writers = {
  ["nil"] = function(out) out[#out + 1] = "null" end,
  boolean = function(out, value) out[#out + 1] = tostring(value) end,
  number = function(out, value)
    out[#out + 1] = value % 1 == 0 and format("%d", value) or format("%.14g", value)
  end,
  string = function(out, value) out[#out + 1] = quoted(value) end,
  table = function(out, value)
    if value[1] ~= nil then
      out[#out + 1] = "["
      for i, item in ipairs(value) do
        if i > 1 then out[#out + 1] = "," end
        write(out, item)
      end
      out[#out + 1] = "]"
      return
    end
    local keys = {}
    for key in pairs(value) do keys[#keys + 1] = key end
    table.sort(keys)
    out[#out + 1] = "{"
    for i = 1, #keys do
      if i > 1 then out[#out + 1] = "," end
      out[#out + 1] = quoted(keys[i])
      out[#out + 1] = ":"
      write(out, value[keys[i]])
    end
    out[#out + 1] = "}"
  end,
}

function write(out, value) writers[type(value)](out, value) end

local function encode(value)
  local out = {}
  write(out, value)
  return concat(out)
end

-- Decoder: recursive descent by bytes. Each function takes the position of a value's first byte and gives the value and the
-- position after it.

local QUOTE, BACKSLASH, COMMA, COLON = 34, 92, 44, 58
local OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, CLOSE_OBJECT = 91, 93, 123, 125

local unescapes = { ['"'] = '"', ["\\"] = "\\", ["/"] = "/", n = "\n", r = "\r", t = "\t", b = "\b", f = "\f" }

local function decode(text)
  local byte, find, sub = string.byte, string.find, string.sub
  local value

  local function fail(at, what) error(format("%s at byte %d", what, at)) end

  local function skip(at)
    local b = byte(text, at)
    while b == 32 or b == 10 or b == 13 or b == 9 do
      at = at + 1
      b = byte(text, at)
    end
    return at, b
  end

  local function string_at(at)
    local first, pieces = at + 1, nil
    while true do
      local stop = find(text, '["\\]', first)
      if not stop then fail(at, "unfinished string") end
      local piece = sub(text, first, stop - 1)
      if byte(text, stop) == QUOTE then
        if not pieces then return piece, stop + 1 end
        pieces[#pieces + 1] = piece
        return concat(pieces), stop + 1
      end
      pieces = pieces or {}
      pieces[#pieces + 1] = piece
      local c = sub(text, stop + 1, stop + 1)
      if c == "u" then
        pieces[#pieces + 1] = string.char(tonumber(sub(text, stop + 2, stop + 5), 16))
        first = stop + 6
      else
        pieces[#pieces + 1] = unescapes[c] or fail(stop, "bad escape")
        first = stop + 2
      end
    end
  end

  local function array_at(at)
    local items, count = {}, 0
    local next_byte
    at, next_byte = skip(at + 1)
    if next_byte == CLOSE_ARRAY then return items, at + 1 end
    while true do
      count = count + 1
      items[count], at = value(at)
      at, next_byte = skip(at)
      if next_byte == CLOSE_ARRAY then return items, at + 1 end
      if next_byte ~= COMMA then fail(at, "',' or ']' expected") end
      at = skip(at + 1)
    end
  end

  local function object_at(at)
    local fields = {}
    local next_byte
    at, next_byte = skip(at + 1)
    if next_byte == CLOSE_OBJECT then return fields, at + 1 end
    while true do
      if next_byte ~= QUOTE then fail(at, "name expected") end
      local name
      name, at = string_at(at)
      at, next_byte = skip(at)
      if next_byte ~= COLON then fail(at, "':' expected") end
      fields[name], at = value((skip(at + 1)))
      at, next_byte = skip(at)
      if next_byte == CLOSE_OBJECT then return fields, at + 1 end
      if next_byte ~= COMMA then fail(at, "',' or '}' expected") end
      at, next_byte = skip(at + 1)
    end
  end

  local words = { t = { "true", true }, f = { "false", false }, n = { "null", nil } }

  function value(at)
    local b = byte(text, at)
    if b == QUOTE then return string_at(at) end
    if b == OPEN_OBJECT then return object_at(at) end
    if b == OPEN_ARRAY then return array_at(at) end
    local word = words[sub(text, at, at)]
    if word then
      if sub(text, at, at + #word[1] - 1) ~= word[1] then fail(at, "bad word") end
      return word[2], at + #word[1]
    end
    local first, last = find(text, "^-?%d+%.?%d*[eE]?[-+]?%d*", at)
    if not first then fail(at, "value expected") end
    return tonumber(sub(text, first, last)), last + 1
  end

  local result, at = value((skip(1)))
  at = skip(at)
  if at <= #text then fail(at, "end expected") end
  return result
end

local function document(records)
  local list = {}
  for i = 1, records do
    list[i] = {
      id = i,
      name = "record " .. i,
      text = 'a "quoted" line\nand\ta tab, number ' .. i % 17,
      weight = i * 0.375,
      active = i % 3 == 0,
      tags = { "red", "green", "tag" .. i % 5 },
      position = { x = i % 100 - 50, y = i * 1.5, z = -i },
    }
  end
  return { title = "benchmark", records = list }
end

local text = encode(document(n))
local again = encode(decode(text))
local sum = 0
for i = 1, #text do sum = (sum * 31 + text:byte(i)) % 16777213 end
print(string.format("%d %d %s", #text, sum, tostring(text == again)))
