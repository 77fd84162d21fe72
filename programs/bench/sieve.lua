-- Stores into an array: the primes up to n by Eratosthenes' sieve; their number and their sum. Ten times over.
-- small 1000: 168 76127
local n = tonumber((...)) or 1000000

local function sieve()
  local composite = {}
  for i = 1, n do composite[i] = false end
  local count, sum = 0, 0
  for i = 2, n do
    if not composite[i] then
      count, sum = count + 1, sum + i
      for j = i * i, n, i do composite[j] = true end
    end
  end
  return count, sum
end

for _ = 1, 9 do sieve() end
print(string.format("%d %d", sieve()))
