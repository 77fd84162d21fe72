-- Records, method calls and a scheduler's queues: Martin Richards' operating system simulation. Six tasks exchange packets;
-- n rounds. Prints how many packets were queued and how often a task was put on hold, which the algorithm determines.
-- small 1: 23246 9297
local n = tonumber((...)) or 20

local IDLE, WORKER, HANDLER_A, HANDLER_B, DEVICE_A, DEVICE_B = 1, 2, 3, 4, 5, 6
local DEVICE, WORK = 1, 2
local COUNT = 10000
local DATA_SIZE = 4

local Packet = {}
Packet.__index = Packet

function Packet.new(link, owner, kind)
  return setmetatable({ link = link, owner = owner, kind = kind, datum = 0, data = { 0, 0, 0, 0 } }, Packet)
end

function Packet:append_to(queue)
  self.link = nil
  if not queue then return self end
  local last = queue
  while last.link do last = last.link end
  last.link = self
  return queue
end

local Scheduler = {}
Scheduler.__index = Scheduler

local Task = {}
Task.__index = Task

function Scheduler.new()
  return setmetatable({ tasks = {}, list = nil, current = nil, queued = 0, held = 0 }, Scheduler)
end

function Scheduler:add(id, priority, queue, run)
  local task = setmetatable({
    scheduler = self, id = id, priority = priority, link = self.list, queue = queue, run = run,
    pending = queue ~= nil, waiting = queue == nil, held = false,
  }, Task)
  self.list, self.tasks[id] = task, task
  return task
end

function Scheduler:schedule()
  self.current = self.list
  while self.current do
    local task = self.current
    if task:is_blocked() then
      self.current = task.link
    else
      self.current = task:step()
    end
  end
end

function Scheduler:release(id)
  local task = self.tasks[id]
  task.held = false
  return task.priority > self.current.priority and task or self.current
end

function Scheduler:hold_current()
  self.held = self.held + 1
  self.current.held = true
  return self.current.link
end

function Scheduler:wait_current()
  self.current.waiting = true
  return self.current
end

function Scheduler:queue(packet)
  local task = self.tasks[packet.owner]
  self.queued = self.queued + 1
  packet.link = nil
  packet.owner = self.current.id
  return task:check_priority(self.current, packet)
end

function Task:is_blocked()
  return self.held or self.waiting and not self.pending
end

function Task:step()
  local packet
  if self.waiting and self.pending then
    packet = self.queue
    self.queue = packet.link
    self.waiting = false
    self.pending = self.queue ~= nil
  end
  return self.run(self.scheduler, packet)
end

function Task:check_priority(other, packet)
  if not self.queue then
    self.queue, self.pending = packet, true
    if self.priority > other.priority then return self end
  else
    self.queue = packet:append_to(self.queue)
  end
  return other
end

-- What the tasks do: each is a function of the scheduler and a packet or nil, and gives the task that is to go on.

local function flip(bits, bit)
  return bits % (2 * bit) >= bit and bits - bit or bits + bit
end

local function idle(rounds)
  local bits, left = 1, rounds
  return function(scheduler)
    left = left - 1
    if left == 0 then return scheduler:hold_current() end
    if bits % 2 == 0 then
      bits = bits / 2
      return scheduler:release(DEVICE_A)
    end
    -- A shift register of 16 bits; the exclusive or with 0xd008 by arithmetic, since not every Lua has the operator.
    bits = flip(flip(flip(flip((bits - 1) / 2, 0x8), 0x1000), 0x4000), 0x8000)
    return scheduler:release(DEVICE_B)
  end
end

local function worker()
  local destination, letter = HANDLER_A, 0
  return function(scheduler, packet)
    if not packet then return scheduler:wait_current() end
    destination = destination == HANDLER_A and HANDLER_B or HANDLER_A
    packet.owner, packet.datum = destination, 1
    for i = 1, DATA_SIZE do
      letter = letter % 26 + 1
      packet.data[i] = letter
    end
    return scheduler:queue(packet)
  end
end

local function handler()
  local work, device
  return function(scheduler, packet)
    if packet then
      if packet.kind == WORK then
        work = packet:append_to(work)
      else
        device = packet:append_to(device)
      end
    end
    if work then
      local first = work
      local datum = first.datum
      if datum > DATA_SIZE then
        work = first.link
        return scheduler:queue(first)
      end
      if device then
        local out = device
        device = out.link
        out.datum = first.data[datum]
        first.datum = datum + 1
        return scheduler:queue(out)
      end
    end
    return scheduler:wait_current()
  end
end

local function device()
  local pending
  return function(scheduler, packet)
    if packet then
      pending = packet
      return scheduler:hold_current()
    end
    if not pending then return scheduler:wait_current() end
    local out = pending
    pending = nil
    return scheduler:queue(out)
  end
end

local function packets(owner, kind, count)
  local list
  for _ = 1, count do list = Packet.new(list, owner, kind) end
  return list
end

local function round()
  local scheduler = Scheduler.new()
  local first = scheduler:add(IDLE, 0, nil, idle(COUNT))
  first.waiting = false
  scheduler:add(WORKER, 1000, packets(WORKER, WORK, 2), worker())
  scheduler:add(HANDLER_A, 2000, packets(DEVICE_A, DEVICE, 3), handler())
  scheduler:add(HANDLER_B, 3000, packets(DEVICE_B, DEVICE, 3), handler())
  scheduler:add(DEVICE_A, 4000, nil, device())
  scheduler:add(DEVICE_B, 5000, nil, device())
  scheduler:schedule()
  return scheduler.queued, scheduler.held
end

local queued, held
for _ = 1, n do queued, held = round() end
print(string.format("%d %d", queued, held))
