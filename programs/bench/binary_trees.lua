-- Allocation and collection: many short-lived binary trees beside one that stays; prints the nodes counted in all.
-- small 6: 4398
local n = tonumber((...)) or 14

local function build(depth)
  if depth == 0 then return {} end
  return { build(depth - 1), build(depth - 1) }
end

local function count(tree)
  local left = tree[1]
  if not left then return 1 end
  return 1 + count(left) + count(tree[2])
end

local stretch = count(build(n + 1))
local lasting = build(n)
local total = stretch
for depth = 4, n, 2 do
  for _ = 1, 2 ^ (n - depth + 4) do
    total = total + count(build(depth))
  end
end
print(string.format("%d", total + count(lasting)))
