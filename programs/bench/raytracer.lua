-- Objects, closures and floats: n by n rays into a scene of spheres over a chequered floor, with shadows and reflections.
-- Prints the mean brightness of each colour.
-- small 16: 0.521666 0.581149 0.662621
local n = tonumber((...)) or 280

local sqrt, floor, huge = math.sqrt, math.floor, math.huge

local Vector = {}
Vector.__index = Vector

local function vector(x, y, z)
  return setmetatable({ x = x, y = y, z = z }, Vector)
end

function Vector.__add(a, b) return vector(a.x + b.x, a.y + b.y, a.z + b.z) end
function Vector.__sub(a, b) return vector(a.x - b.x, a.y - b.y, a.z - b.z) end
function Vector:scale(f) return vector(self.x * f, self.y * f, self.z * f) end
function Vector:dot(b) return self.x * b.x + self.y * b.y + self.z * b.z end
function Vector:unit() return self:scale(1 / sqrt(self:dot(self))) end
function Vector:times(b) return vector(self.x * b.x, self.y * b.y, self.z * b.z) end

local Sphere = {}
Sphere.__index = Sphere

function Sphere.new(centre, radius, colour, mirror)
  return setmetatable({ centre = centre, square = radius * radius, radius = radius, shade = colour, mirror = mirror }, Sphere)
end

-- The distance along the ray at which it meets the sphere, or nil.
function Sphere:meet(origin, direction)
  local between = self.centre - origin
  local along = between:dot(direction)
  local under = self.square - between:dot(between) + along * along
  if under < 0 then return nil end
  local root = sqrt(under)
  if along - root > 1e-6 then return along - root end
  if along + root > 1e-6 then return along + root end
  return nil
end

function Sphere:normal(point) return (point - self.centre):scale(1 / self.radius) end
function Sphere:colour() return self.shade end

local Floor = {}
Floor.__index = Floor

function Floor.new(height, light, dark, mirror)
  return setmetatable({ height = height, light = light, dark = dark, mirror = mirror, up = vector(0, 1, 0) }, Floor)
end

function Floor:meet(origin, direction)
  if direction.y > -1e-9 then return nil end
  local distance = (self.height - origin.y) / direction.y
  return distance > 1e-6 and distance or nil
end

function Floor:normal() return self.up end

function Floor:colour(point)
  return (floor(point.x) + floor(point.z)) % 2 == 0 and self.light or self.dark
end

local scene = {
  Floor.new(-1, vector(0.9, 0.9, 0.9), vector(0.1, 0.1, 0.1), 0.1),
  Sphere.new(vector(0, 0, 4), 1, vector(1, 0.3, 0.2), 0.4),
  Sphere.new(vector(-1.6, -0.4, 3.2), 0.6, vector(0.2, 0.9, 0.3), 0.2),
  Sphere.new(vector(1.4, -0.5, 2.8), 0.5, vector(0.2, 0.4, 1), 0.3),
  Sphere.new(vector(0.2, 1.3, 5), 0.8, vector(1, 0.9, 0.2), 0.5),
}
local sun = vector(0.5, 0.8, -0.6):unit()
local black = vector(0, 0, 0)

local function nearest(origin, direction)
  local distance, object = huge, nil
  for i = 1, #scene do
    local found = scene[i]:meet(origin, direction)
    if found and found < distance then distance, object = found, scene[i] end
  end
  return object, distance
end

local function sky(direction)
  local t = 0.5 * (direction.y + 1)
  return vector(1 - 0.5 * t, 1 - 0.3 * t, 1)
end

local function trace(origin, direction, depth)
  local object, distance = nearest(origin, direction)
  if not object then return sky(direction) end
  local point = origin + direction:scale(distance)
  local normal = object:normal(point)
  local brightness = 0.15
  local towards = normal:dot(sun)
  if towards > 0 and not nearest(point, sun) then brightness = brightness + 0.85 * towards end
  local colour = object:colour(point):scale(brightness)
  if depth == 0 then return colour end
  local reflected = direction - normal:scale(2 * normal:dot(direction))
  local mirror = object.mirror
  return colour:scale(1 - mirror) + trace(point, reflected, depth - 1):scale(mirror)
end

local eye, total = vector(0, 0.5, -2), black
for row = 1, n do
  for column = 1, n do
    local direction = vector((column - 0.5) / n - 0.5, 0.5 - (row - 0.5) / n, 1):unit()
    total = total + trace(eye, direction, 3)
  end
end
total = total:scale(1 / (n * n))
print(string.format("%.6f %.6f %.6f", total.x, total.y, total.z))
