-- Building strings: formatted lines, concatenation in a loop, table.concat, and taking them apart again by patterns,
-- find, sub and byte. Prints lengths and checksums.
-- small 100: 2233 771 32789 4950 24329
local n = tonumber((...)) or 160000

local words = { "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta" }

-- Lines of "key=value" pairs.
local function report()
  local lines = {}
  for i = 1, n do
    local word = words[i % #words + 1]
    lines[#lines + 1] = string.format("%s=%d,%s=%5.2f", word, i, word:upper(), i / 4)
  end
  return table.concat(lines, "\n")
end

local function escape(text)
  return (text:gsub("[=,]", { ["="] = ": ", [","] = ";" }))
end

-- A string that grows by small pieces, cut when it gets long.
local function accumulate()
  local kept, line = 0, ""
  for i = 1, n do
    line = line .. i % 10 .. "-" .. words[i % 7 + 1] .. ";"
    if #line > 200 then
      kept = kept + #line
      line = ""
    end
  end
  return kept + #line
end

local function sum_of_bytes(text)
  local sum = 0
  for i = 1, #text, 7 do sum = (sum * 3 + text:byte(i)) % 65521 end
  return sum
end

-- The numbers before the commas, by find and sub.
local function sum_of_numbers(text)
  local sum, at = 0, 1
  while true do
    local equals = text:find("=", at, true)
    if not equals then return sum end
    local comma = text:find(",", equals, true)
    sum = sum + tonumber(text:sub(equals + 1, comma - 1))
    at = (text:find("\n", comma, true) or #text) + 1
    if at > #text then return sum end
  end
end

local function reversed_words(text)
  local count, checksum = 0, 0
  for word in text:gmatch("%a+") do
    count = count + 1
    checksum = (checksum + word:reverse():byte() * count) % 65521
  end
  return checksum
end

local text = report()
print(string.format("%d %d %d %d %d", #escape(text), accumulate(), sum_of_bytes(text), sum_of_numbers(text) - n,
  reversed_words(text)))
