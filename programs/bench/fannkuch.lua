-- Small arrays of small integers: over all permutations of n numbers, how often the first k must be reversed,
-- k being the first number, until that is 1. Prints an alternating sum of the counts, and the largest.
-- small 6: 49 10
local n = tonumber((...)) or 10

local function fannkuch()
  local permutation, work, count = {}, {}, {}
  for i = 1, n do permutation[i], count[i] = i, i end
  local sign, most, sum = 1, 0, 0
  while true do
    -- Reverse prefixes of a copy.
    local first = permutation[1]
    if first ~= 1 then
      for i = 2, n do work[i] = permutation[i] end
      local flips = 1
      while true do
        local next_first = work[first]
        if next_first == 1 then break end
        work[first] = first
        if first >= 4 then
          local i, j = 2, first - 1
          repeat
            work[i], work[j] = work[j], work[i]
            i, j = i + 1, j - 1
          until i >= j
        end
        first, flips = next_first, flips + 1
      end
      sum = sum + sign * flips
      if flips > most then most = flips end
    end
    -- The next permutation: swap the first two, or rotate more and more of them.
    if sign == 1 then
      permutation[1], permutation[2] = permutation[2], permutation[1]
      sign = -1
    else
      permutation[2], permutation[3] = permutation[3], permutation[2]
      sign = 1
      for i = 3, n do
        local c = count[i]
        if c ~= 1 then
          count[i] = c - 1
          break
        end
        if i == n then return sum, most end
        count[i] = i
        local p1 = permutation[1]
        for j = 1, i do permutation[j] = permutation[j + 1] end
        permutation[i + 1] = p1
      end
    end
  end
end

print(string.format("%d %d", fannkuch()))
