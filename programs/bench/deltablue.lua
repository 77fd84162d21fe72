-- Objects, polymorphic methods and lists: the DeltaBlue solver of one-way constraints (Freeman-Benson, Maloney and Borning, 1990).
-- Two tests: a chain of n equalities whose one end is edited, and n scaled projections with edits of every input.
-- Prints a checksum of the values; a wrong one is an error.
-- small 20: 5050 58900
local n = tonumber((...)) or 12000

-- Strengths, strongest first.
local REQUIRED, STRONG_PREFERRED, PREFERRED, STRONG_DEFAULT, NORMAL, WEAK_DEFAULT, WEAKEST = 1, 2, 3, 4, 5, 6, 7

local function weakest(a, b) return a > b and a or b end

local Variable = {}
Variable.__index = Variable

function Variable.new(value)
  return setmetatable({
    value = value, constraints = {}, determined_by = nil, mark = 0, walk_strength = WEAKEST, stay = true,
  }, Variable)
end

function Variable:add(constraint)
  self.constraints[#self.constraints + 1] = constraint
end

function Variable:remove(constraint)
  local list = self.constraints
  for i = 1, #list do
    if list[i] == constraint then
      table.remove(list, i)
      break
    end
  end
  if self.determined_by == constraint then self.determined_by = nil end
end

-- Constraints. Every class has: add_to_graph, remove_from_graph, choose_method(mark), is_satisfied, mark_inputs(mark),
-- inputs_known(mark), output, mark_unsatisfied, recalculate, execute.

local Constraint = {}
Constraint.__index = Constraint

local function class(parent)
  local c = setmetatable({}, { __index = parent })
  c.__index = c
  return c
end

function Constraint:is_input() return false end

-- Tries to enforce the constraint; gives the one that it displaced, if there was one.
function Constraint:satisfy(mark, planner)
  self:choose_method(mark)
  if not self:is_satisfied() then
    if self.strength == REQUIRED then error("a required constraint could not be satisfied") end
    return nil
  end
  self:mark_inputs(mark)
  local out = self:output()
  local displaced = out.determined_by
  if displaced then displaced:mark_unsatisfied() end
  out.determined_by = self
  if not planner:propagate(self, mark) then error("cycle") end
  out.mark = mark
  return displaced
end

-- Of one variable: stay and edit.

local Unary = class(Constraint)

function Unary:add_to_graph()
  self.variable:add(self)
  self.satisfied = false
end

function Unary:remove_from_graph()
  self.variable:remove(self)
  self.satisfied = false
end

function Unary:choose_method(mark)
  self.satisfied = self.variable.mark ~= mark and self.strength < self.variable.walk_strength
end

function Unary:is_satisfied() return self.satisfied end
function Unary:mark_inputs() end
function Unary:inputs_known() return true end
function Unary:output() return self.variable end
function Unary:mark_unsatisfied() self.satisfied = false end

function Unary:recalculate()
  local out = self.variable
  out.walk_strength = self.strength
  out.stay = not self:is_input()
  if out.stay then self:execute() end
end

function Unary:execute() end

local Stay = class(Unary)
local Edit = class(Unary)

function Edit:is_input() return true end

-- Of two variables: equality, and with a factor and an offset.

local NONE, FORWARD, BACKWARD = 0, 1, 2
local Binary = class(Constraint)

function Binary:add_to_graph()
  self.first:add(self)
  self.second:add(self)
  self.direction = NONE
end

function Binary:remove_from_graph()
  self.first:remove(self)
  self.second:remove(self)
  self.direction = NONE
end

function Binary:choose_method(mark)
  local first, second, strength = self.first, self.second, self.strength
  self.direction = NONE
  if first.mark == mark then
    if second.mark ~= mark and strength < second.walk_strength then self.direction = FORWARD end
  elseif second.mark == mark then
    if strength < first.walk_strength then self.direction = BACKWARD end
  elseif first.walk_strength > second.walk_strength then
    if strength < first.walk_strength then self.direction = BACKWARD end
  elseif strength < second.walk_strength then
    self.direction = FORWARD
  end
end

function Binary:is_satisfied() return self.direction ~= NONE end
function Binary:mark_unsatisfied() self.direction = NONE end
function Binary:input() return self.direction == FORWARD and self.first or self.second end
function Binary:output() return self.direction == FORWARD and self.second or self.first end
function Binary:mark_inputs(mark) self:input().mark = mark end

function Binary:inputs_known(mark)
  local input = self:input()
  return input.mark == mark or input.stay or input.determined_by == nil
end

function Binary:recalculate()
  local input, out = self:input(), self:output()
  out.walk_strength = weakest(self.strength, input.walk_strength)
  out.stay = input.stay
  if out.stay then self:execute() end
end

local Equality = class(Binary)

function Equality:execute() self:output().value = self:input().value end

local Scale = class(Binary)

function Scale:add_to_graph()
  Binary.add_to_graph(self)
  self.factor:add(self)
  self.offset:add(self)
end

function Scale:remove_from_graph()
  Binary.remove_from_graph(self)
  self.factor:remove(self)
  self.offset:remove(self)
end

function Scale:mark_inputs(mark)
  Binary.mark_inputs(self, mark)
  self.factor.mark, self.offset.mark = mark, mark
end

function Scale:execute()
  if self.direction == FORWARD then
    self.second.value = self.first.value * self.factor.value + self.offset.value
  else
    self.first.value = (self.second.value - self.offset.value) / self.factor.value
  end
end

function Scale:recalculate()
  local input, out = self:input(), self:output()
  out.walk_strength = weakest(self.strength, input.walk_strength)
  out.stay = input.stay and self.factor.stay and self.offset.stay
  if out.stay then self:execute() end
end

-- The planner.

local Planner = {}
Planner.__index = Planner

function Planner.new() return setmetatable({ mark = 0 }, Planner) end

function Planner:new_mark()
  self.mark = self.mark + 1
  return self.mark
end

function Planner:incremental_add(constraint)
  local mark = self:new_mark()
  local displaced = constraint:satisfy(mark, self)
  while displaced do displaced = displaced:satisfy(mark, self) end
end

function Planner:incremental_remove(constraint)
  local out = constraint:output()
  constraint:mark_unsatisfied()
  constraint:remove_from_graph()
  local unsatisfied = self:remove_propagate_from(out)
  for strength = REQUIRED, WEAKEST do
    for _, u in ipairs(unsatisfied) do
      if u.strength == strength then self:incremental_add(u) end
    end
  end
end

local function add_consumers(variable, list)
  local determining = variable.determined_by
  for _, constraint in ipairs(variable.constraints) do
    if constraint ~= determining and constraint:is_satisfied() then list[#list + 1] = constraint end
  end
end

function Planner:propagate(constraint, mark)
  local todo = { constraint }
  while #todo > 0 do
    local c = table.remove(todo)
    if c:output().mark == mark then
      self:incremental_remove(constraint)
      return false
    end
    c:recalculate()
    add_consumers(c:output(), todo)
  end
  return true
end

function Planner:remove_propagate_from(out)
  out.determined_by, out.walk_strength, out.stay = nil, WEAKEST, true
  local unsatisfied, todo = {}, { out }
  while #todo > 0 do
    local variable = table.remove(todo)
    for _, c in ipairs(variable.constraints) do
      if not c:is_satisfied() then unsatisfied[#unsatisfied + 1] = c end
    end
    local determining = variable.determined_by
    for _, next_one in ipairs(variable.constraints) do
      if next_one ~= determining and next_one:is_satisfied() then
        next_one:recalculate()
        todo[#todo + 1] = next_one:output()
      end
    end
  end
  return unsatisfied
end

-- The constraints to execute, in order, when the values of the sources change.
function Planner:make_plan(sources)
  local mark, plan, todo = self:new_mark(), {}, sources
  while #todo > 0 do
    local c = table.remove(todo)
    if c:output().mark ~= mark and c:inputs_known(mark) then
      plan[#plan + 1] = c
      c:output().mark = mark
      add_consumers(c:output(), todo)
    end
  end
  return plan
end

function Planner:plan_from(constraints)
  local sources = {}
  for _, c in ipairs(constraints) do
    if c:is_input() and c:is_satisfied() then sources[#sources + 1] = c end
  end
  return self:make_plan(sources)
end

function Planner:add(class_of, fields)
  local constraint = setmetatable(fields, class_of)
  constraint:add_to_graph()
  self:incremental_add(constraint)
  return constraint
end

local function execute(plan)
  for i = 1, #plan do plan[i]:execute() end
end

-- The tests.

local function chain(length)
  local planner, variables = Planner.new(), {}
  for i = 1, length + 1 do variables[i] = Variable.new(0) end
  local first, last = variables[1], variables[length + 1]
  for i = 1, length do
    planner:add(Equality, { first = variables[i], second = variables[i + 1], strength = REQUIRED, direction = NONE })
  end
  planner:add(Stay, { variable = last, strength = STRONG_DEFAULT })
  local edit = planner:add(Edit, { variable = first, strength = PREFERRED })
  local plan, sum = planner:plan_from({ edit }), 0
  for i = 1, 100 do
    first.value = i
    execute(plan)
    if last.value ~= i then error("the chain does not hold") end
    sum = sum + last.value
  end
  planner:incremental_remove(edit)
  return sum
end

local function change(planner, variable, value)
  local edit = planner:add(Edit, { variable = variable, strength = PREFERRED })
  local plan = planner:plan_from({ edit })
  for _ = 1, 10 do
    variable.value = value
    execute(plan)
  end
  planner:incremental_remove(edit)
end

local function projection(count)
  local planner, sources, targets = Planner.new(), {}, {}
  local factor, offset = Variable.new(10), Variable.new(1000)
  for i = 1, count do
    local source, target = Variable.new(i), Variable.new(i)
    sources[i], targets[i] = source, target
    planner:add(Stay, { variable = source, strength = NORMAL })
    planner:add(Scale, {
      first = source, second = target, factor = factor, offset = offset, strength = REQUIRED, direction = NONE,
    })
  end
  local sum = 0
  change(planner, sources[count], 17)
  if targets[count].value ~= 1170 then error("the projection does not hold forward") end
  change(planner, targets[count], 1050)
  if sources[count].value ~= 5 then error("the projection does not hold backward") end
  change(planner, factor, 5)
  for i = 1, count - 1 do
    if targets[i].value ~= i * 5 + 1000 then error("the factor did not arrive") end
    sum = sum + targets[i].value
  end
  change(planner, offset, 2000)
  for i = 1, count - 1 do
    if targets[i].value ~= i * 5 + 2000 then error("the offset did not arrive") end
    sum = sum + targets[i].value
  end
  return sum
end

print(string.format("%d %d", chain(n), projection(n)))
