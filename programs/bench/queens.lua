-- Backtracking with three arrays of booleans: in how many ways n queens stand on an n by n board, none attacking another.
-- small 6: 4
local n = tonumber((...)) or 12

local column_taken, rising_taken, falling_taken = {}, {}, {}
for i = 1, 2 * n do
  column_taken[i], rising_taken[i], falling_taken[i] = false, false, false
end

local function place(row)
  if row > n then return 1 end
  local ways = 0
  for column = 1, n do
    local rising, falling = row + column - 1, row - column + n
    if not (column_taken[column] or rising_taken[rising] or falling_taken[falling]) then
      column_taken[column], rising_taken[rising], falling_taken[falling] = true, true, true
      ways = ways + place(row + 1)
      column_taken[column], rising_taken[rising], falling_taken[falling] = false, false, false
    end
  end
  return ways
end

print(place(1))
