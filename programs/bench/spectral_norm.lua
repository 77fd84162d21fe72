-- Float arithmetic in nested loops over arrays: the largest singular value of the infinite matrix
-- A(i,j) = 1 / ((i+j)(i+j+1)/2 + i + 1), cut to n by n, by ten steps of the power method.
-- small 20: 1.273839841
local n = tonumber((...)) or 450

local function a(i, j)
  local ij = i + j - 1
  return 1.0 / (ij * (ij - 1) * 0.5 + i)
end

local function times(x, y)
  for i = 1, n do
    local sum = 0
    for j = 1, n do sum = sum + x[j] * a(i, j) end
    y[i] = sum
  end
end

local function transposed_times(x, y)
  for i = 1, n do
    local sum = 0
    for j = 1, n do sum = sum + x[j] * a(j, i) end
    y[i] = sum
  end
end

local u, v, t = {}, {}, {}
for i = 1, n do u[i] = 1 end
for _ = 1, 10 do
  times(u, t)
  transposed_times(t, v)
  times(v, t)
  transposed_times(t, u)
end

local uv, vv = 0, 0
for i = 1, n do
  uv, vv = uv + u[i] * v[i], vv + v[i] * v[i]
end
print(string.format("%.9f", math.sqrt(uv / vv)))
