-- Float arithmetic in registers: the points of an n by n grid that stay bounded for 50 steps.
-- small 32: 416
local n = tonumber((...)) or 900

local inside = 0
for row = 0, n - 1 do
  local ci = 2.0 * row / n - 1.0
  for column = 0, n - 1 do
    local cr = 2.0 * column / n - 1.5
    local zr, zi, rr, ii = 0.0, 0.0, 0.0, 0.0
    local steps = 0
    while steps < 50 and rr + ii <= 4.0 do
      zi = 2.0 * zr * zi + ci
      zr = rr - ii + cr
      rr, ii = zr * zr, zi * zi
      steps = steps + 1
    end
    if steps == 50 then inside = inside + 1 end
  end
end
print(inside)
