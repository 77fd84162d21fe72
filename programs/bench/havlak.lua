-- Graphs of tables, union-find, sets: the loops of a control flow graph by Havlak's algorithm (Nesting of Reducible and Irreducible
-- Loops, 1997). The graph is n nests of loops, three deep, behind one another. Prints how many blocks the graph has, how many
-- loops, how many blocks lie in them, how deep they nest, and how many are irreducible.
-- small 2: 149 26 120 3 0
local n = tonumber((...)) or 400

local Graph = {}
Graph.__index = Graph

function Graph.new() return setmetatable({ blocks = {} }, Graph) end

function Graph:block()
  local block = { number = #self.blocks + 1, into = {}, out = {} }
  self.blocks[block.number] = block
  return block
end

local function connect(from, to)
  from.out[#from.out + 1] = to
  to.into[#to.into + 1] = from
end

-- Builders: each begins behind a block and gives the last block of what it made.

function Graph:straight(from, count)
  for _ = 1, count do
    local to = self:block()
    connect(from, to)
    from = to
  end
  return from
end

function Graph:diamond(from)
  local left, right, join = self:block(), self:block(), self:block()
  connect(from, left)
  connect(from, right)
  connect(left, join)
  connect(right, join)
  return join
end

function Graph:loop(from, body)
  local header = self:straight(from, 1)
  local bottom = body(header)
  connect(bottom, header)
  return self:straight(bottom, 1)
end

local function build(nests)
  local graph = Graph.new()
  local at = graph:block()
  for _ = 1, nests do
    at = graph:loop(at, function(outer)
      for _ = 1, 2 do
        outer = graph:loop(outer, function(middle)
          middle = graph:diamond(middle)
          for _ = 1, 5 do
            middle = graph:loop(middle, function(inner) return graph:diamond(graph:straight(inner, 1)) end)
          end
          return graph:straight(middle, 1)
        end)
      end
      return outer
    end)
  end
  return graph
end

-- The algorithm. Nodes are numbered in depth-first order; node w is an ancestor of v if w <= v <= last[w].

local function number_depth_first(start)
  local number, nodes, last = {}, {}, {}
  local stack, position = { start }, { 1 }
  number[start], nodes[1] = 1, start
  while #stack > 0 do
    local top = #stack
    local block, i = stack[top], position[top]
    local to = block.out[i]
    if to then
      position[top] = i + 1
      if not number[to] then
        nodes[#nodes + 1] = to
        number[to] = #nodes
        stack[top + 1], position[top + 1] = to, 1
      end
    else
      last[number[block]] = #nodes
      stack[top], position[top] = nil, nil
    end
  end
  return number, nodes, last
end

-- The representative of a node's set, with the path compressed.
local function find(parent, x)
  local root = x
  while parent[root] ~= root do root = parent[root] end
  while parent[x] ~= root do
    local above = parent[x]
    parent[x] = root
    x = above
  end
  return root
end

local function find_loops(graph)
  local number, nodes, last = number_depth_first(graph.blocks[1])
  local count = #nodes
  local back, others, parent, loop_of = {}, {}, {}, {}
  for w = 1, count do
    back[w], others[w], parent[w] = {}, {}, w
    for _, from in ipairs(nodes[w].into) do
      local v = number[from]
      if v then
        if w <= v and v <= last[w] then
          table.insert(back[w], v)
        else
          table.insert(others[w], v)
        end
      end
    end
  end
  local loops = {}
  for w = count, 1, -1 do
    local pool, in_pool, self_loop = {}, {}, false
    for _, v in ipairs(back[w]) do
      if v == w then
        self_loop = true
      else
        local x = find(parent, v)
        if not in_pool[x] then
          in_pool[x] = true
          pool[#pool + 1] = x
        end
      end
    end
    -- Everything from which the back edges' sources are reached without passing the header.
    local i, reducible = 1, true
    while i <= #pool do
      local x = pool[i]
      i = i + 1
      for _, v in ipairs(others[x]) do
        local y = find(parent, v)
        if not (w <= y and y <= last[w]) then
          reducible = false
          table.insert(others[w], y)
        elseif y ~= w and not in_pool[y] then
          in_pool[y] = true
          pool[#pool + 1] = y
        end
      end
    end
    if #pool > 0 or self_loop then
      local loop = { header = nodes[w], reducible = reducible, blocks = {}, parent = nil }
      loops[#loops + 1] = loop
      loop_of[w] = loop
      for _, x in ipairs(pool) do
        parent[x] = w
        if loop_of[x] then
          loop_of[x].parent = loop
        else
          loop.blocks[#loop.blocks + 1] = nodes[x]
        end
      end
    end
  end
  return loops
end

local function depth_of(loop)
  local depth = 0
  while loop do depth, loop = depth + 1, loop.parent end
  return depth
end

local graph = build(n)
local loops
for _ = 1, 5 do loops = find_loops(graph) end
local deepest, blocks, irreducible = 0, 0, 0
for _, loop in ipairs(loops) do
  deepest = math.max(deepest, depth_of(loop))
  blocks = blocks + #loop.blocks
  if not loop.reducible then irreducible = irreducible + 1 end
end
print(string.format("%d %d %d %d %d", #graph.blocks, #loops, blocks, deepest, irreducible))
