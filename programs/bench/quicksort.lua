-- Calls of closures and swaps in an array: n pseudo-random numbers sorted by a quicksort that is given its order.
-- Prints a checksum of the order, and the number of comparisons.
-- small 100: 5424188 1334
local n = tonumber((...)) or 200000

local function quicksort(t, first, last, less)
  while last - first > 12 do
    -- The median of three as pivot, and the larger part by the loop: the depth is logarithmic.
    local middle = (first + last - (first + last) % 2) / 2
    if less(t[middle], t[first]) then t[middle], t[first] = t[first], t[middle] end
    if less(t[last], t[middle]) then
      t[last], t[middle] = t[middle], t[last]
      if less(t[middle], t[first]) then t[middle], t[first] = t[first], t[middle] end
    end
    local pivot = t[middle]
    local i, j = first, last
    repeat
      while less(t[i], pivot) do i = i + 1 end
      while less(pivot, t[j]) do j = j - 1 end
      if i <= j then
        t[i], t[j] = t[j], t[i]
        i, j = i + 1, j - 1
      end
    until i > j
    if j - first < last - i then
      quicksort(t, first, j, less)
      first = i
    else
      quicksort(t, i, last, less)
      last = j
    end
  end
  for i = first + 1, last do
    local v = t[i]
    local j = i - 1
    while j >= first and less(v, t[j]) do
      t[j + 1] = t[j]
      j = j - 1
    end
    t[j + 1] = v
  end
end

-- Lehmer's generator with the multiplier of Park and Miller: its products stay below 2^53.
local function numbers(count)
  local seed, t = 42, {}
  for i = 1, count do
    seed = seed * 16807 % 2147483647
    t[i] = seed
  end
  return t
end

local comparisons = 0
local function counted(less)
  return function(a, b)
    comparisons = comparisons + 1
    return less(a, b)
  end
end

local checksum = 0
local function add_up(t)
  for i = 1, n do checksum = (checksum * 31 + t[i]) % 16777213 end
end

local t = numbers(n)
quicksort(t, 1, n, counted(function(a, b) return a < b end))
add_up(t)
quicksort(t, 1, n, counted(function(a, b) return a % 1000 > b % 1000 or a % 1000 == b % 1000 and a > b end))
add_up(t)
print(string.format("%d %d", checksum, comparisons))
