-- Substrings as keys of a table: how often each piece of 1 to 6 letters occurs in a random DNA sequence of n letters.
-- Prints the most frequent of each length with its count, and the number of different pieces of 6.
-- small 500: G:147 GG:45 GGG:16 GGGG:7 GGGGG:4 ATCTAT:3 468
local n = tonumber((...)) or 800000

local function sequence(length)
  local seed, letters = 42, {}
  for i = 1, length do
    seed = (seed * 3877 + 29573) % 139968
    local x = seed / 139968
    letters[i] = x < 0.30 and "A" or x < 0.50 and "C" or x < 0.75 and "G" or "T"
  end
  return table.concat(letters)
end

local function frequencies(text, k)
  local counts = {}
  for i = 1, #text - k + 1 do
    local piece = text:sub(i, i + k - 1)
    counts[piece] = (counts[piece] or 0) + 1
  end
  return counts
end

local function most_frequent(counts)
  local best, different = nil, 0
  for piece, count in pairs(counts) do
    different = different + 1
    if not best or count > counts[best] or count == counts[best] and piece < best then best = piece end
  end
  return best, different
end

local text = sequence(n)
local found, different = {}, 0
for k = 1, 6 do
  local counts = frequencies(text, k)
  local best
  best, different = most_frequent(counts)
  found[k] = best .. ":" .. counts[best]
end
print(table.concat(found, " ") .. " " .. different)
