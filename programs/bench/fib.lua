-- Calls: the Fibonacci numbers by their definition, about 1.6^n calls.
-- small 12: 144
local n = tonumber((...)) or 35

local function fib(i)
  if i < 2 then return i end
  return fib(i - 1) + fib(i - 2)
end

print(fib(n))
