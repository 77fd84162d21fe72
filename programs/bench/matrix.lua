-- Arrays of arrays of floats: the product of two n by n matrices; its trace and its corners.
-- small 8: 9.324218750 -0.109375000 3.554687500
local n = tonumber((...)) or 300

local function matrix(f)
  local m = {}
  for i = 1, n do
    local row = {}
    for j = 1, n do row[j] = f(i, j) end
    m[i] = row
  end
  return m
end

local function transpose(m)
  return matrix(function(i, j) return m[j][i] end)
end

local function product(a, b)
  local columns, c = transpose(b), {}
  for i = 1, n do
    local row, target = a[i], {}
    for j = 1, n do
      local column, sum = columns[j], 0.0
      for k = 1, n do sum = sum + row[k] * column[k] end
      target[j] = sum
    end
    c[i] = target
  end
  return c
end

local a = matrix(function(i, j) return (2 * i - j) * (i + j - 2) / (n * n) end)
local b = matrix(function(i, j) return (i + 2 * j) % 7 / 4 - 0.5 end)
local c = product(a, b)
local trace = 0
for i = 1, n do trace = trace + c[i][i] end
print(string.format("%.9f %.9f %.9f", trace, c[1][n], c[n][1]))
