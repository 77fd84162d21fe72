//! `vua run --race`: each kind of place that can race is told, each kind of synchronisation orders, whatever the interleaving.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Interleavings that each program is tried in.
const SEEDS: std::ops::Range<u64> = 1..13;

fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("races-{name}"));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn vua(folder: &Path, options: &[&str], file: &str, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vua"))
        .args(["run", "--race"])
        .args(options)
        .arg(file)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// What was told of a program under a seed: its lines about races, and the status.
fn told(folder: &Path, seed: u64, options: &[&str]) -> (Vec<String>, Option<i32>) {
    let seed = seed.to_string();
    let options = [&["--schedule-seed", &*seed], options].concat();
    let output = vua(folder, &options, "program.vua", &[]);
    let races = text(&output.stderr)
        .lines()
        .filter(|line| line.starts_with("vua: "))
        .map(str::to_owned)
        .collect();
    (races, output.status.code())
}

/// Each of these races once, about what the second string says.
const RACY: &[(&str, &str, &str)] = &[
    (
        "field",
        "field 'n' of upvalue 't'",
        "local t = {n = 0}
         local function work() t.n = t.n + 1 end
         local a, b = spawn(work), spawn(work)
         a:join() b:join()",
    ),
    (
        "unread",
        "field 'n' of upvalue 't'",
        "local t = {n = 0}
         local a = spawn(function() t.n = 1 end)
         local b = spawn(function() local x = t.n end)
         a:join() b:join()",
    ),
    (
        "absent",
        "field 'n' of upvalue 't'",
        "local t = {}
         local a = spawn(function() t.n = 1 end)
         local b = spawn(function() local x = t.n end)
         a:join() b:join()",
    ),
    (
        "index",
        "index 3 of upvalue 't'",
        "local t = {1, 2, 3}
         local a = spawn(function() t[3] = 1 end)
         local b = spawn(function() for i = 1, 3 do local x = t[i] end end)
         a:join() b:join()",
    ),
    (
        "key",
        "the element of an object as key of upvalue 't'",
        "local k = {}
         local t = {[k] = 1}
         local a, b = spawn(function() t[k] = 2 end), spawn(function() t[k] = 3 end)
         a:join() b:join()",
    ),
    (
        "string",
        "field 'k7'",
        "local t = {k7 = 1}
         local function work(i) t['k' .. i] = i end
         local a, b = spawn(work, 7), spawn(work, 7)
         a:join() b:join()",
    ),
    (
        "global",
        "global 'counter'",
        "counter = 0
         local a, b = spawn(function() counter = 1 end), spawn(function() counter = 2 end)
         a:join() b:join()",
    ),
    (
        "local",
        "local 'n'",
        "local n = 0
         local a, b = spawn(function() n = 1 end), spawn(function() n = 2 end)
         a:join() b:join()",
    ),
    (
        "raw_local",
        "local 'n'",
        "local n: f64 = 0
         local a = spawn(function() n = 1 end)
         n = n + 1
         a:join()",
    ),
    (
        "own_local",
        "local 'n'",
        "local n = 0
         local a = spawn(function() n = 1 end)
         n = 2
         a:join()",
    ),
    (
        "struct",
        "field 'x'",
        "struct P x: f64 y: f64 end
         local p: P = P {}
         local a, b = spawn(function() p.x = 1 end), spawn(function() p.x = 2 p.y = 3 end)
         a:join() b:join()",
    ),
    (
        "struct_any",
        "field 'x'",
        "struct P x: f64 y: f64 end
         local function set(p, v) p.x = v end
         local p = P {}
         local a, b = spawn(set, p, 1), spawn(set, p, 2)
         a:join() b:join()",
    ),
    (
        "struct_array",
        "field 'y' of element 2",
        "struct P x: f64 y: f64 end
         local ps: P[] = P.array(3)
         local function work(v) ps[2].y = v end
         local a, b = spawn(work, 1), spawn(work, 2)
         a:join() b:join()",
    ),
    (
        "array",
        "element 5",
        "local xs: f64[] = f64.array(10)
         local a, b = spawn(function() xs[5] = 1 end), spawn(function() xs[5] = 2 end)
         a:join() b:join()",
    ),
    (
        "slice",
        "element",
        "local xs = reg.array(10)
         local half = xs:slice(6, 10)
         local a = spawn(function() xs[6] = 1 end)
         local x = half[1]
         a:join()",
    ),
    (
        "fill",
        "element",
        "local xs = bytes(4)
         local a = spawn(function() xs:fill(1) end)
         local b = spawn(function() return xs:tostring() end)
         a:join() b:join()",
    ),
    (
        "insert",
        "of",
        "local t = {}
         local a, b = spawn(function() table.insert(t, 1) end), spawn(function() table.insert(t, 2) end)
         a:join() b:join()",
    ),
    (
        "length",
        "the set of keys",
        "local t = {1, 2}
         local a, b = spawn(function() t[3] = 1 end), spawn(function() return #t end)
         a:join() b:join()",
    ),
    (
        "iteration",
        "the set of keys",
        "local t = {a = 1}
         local a = spawn(function() t.b = 1 end)
         local b = spawn(function() for k in pairs(t) do end end)
         a:join() b:join()",
    ),
    (
        "iterated_value",
        "field 'a'",
        "local t = {a = 1}
         local a = spawn(function() t.a = 2 end)
         local b = spawn(function() for k, v in pairs(t) do end end)
         a:join() b:join()",
    ),
    (
        "next",
        "the set of keys",
        "local t = {a = 1}
         local a = spawn(function() t.b = 1 end)
         local b = spawn(function() return next(t) end)
         a:join() b:join()",
    ),
    (
        "concat",
        "index 2",
        "local t = {1, 2, 3}
         local a = spawn(function() t[2] = 'x' end)
         local b = spawn(function() return table.concat(t, ',', 1, 3) end)
         a:join() b:join()",
    ),
    (
        "unpack",
        "index 2",
        "local t = {1, 2, 3}
         local a = spawn(function() t[2] = 'x' end)
         local b = spawn(function() return table.unpack(t, 1, 3) end)
         a:join() b:join()",
    ),
    (
        "sort",
        "index",
        "local t = {3, 1, 2}
         local a = spawn(function() table.sort(t) end)
         local b = spawn(function() return t[2] end)
         a:join() b:join()",
    ),
    (
        "rawset",
        "field 'x'",
        "local t = {x = 1}
         local a = spawn(function() rawset(t, 'x', 2) end)
         local b = spawn(function() return rawget(t, 'x') end)
         a:join() b:join()",
    ),
    (
        "inherited",
        "field 'm'",
        "local class = {m = 1}
         class.__index = class
         local o = setmetatable({}, class)
         local a, b = spawn(function() class.m = 2 end), spawn(function() return o.m end)
         a:join() b:join()",
    ),
    (
        "metatable",
        "the metatable of a table",
        "local o = {}
         local a = spawn(function() setmetatable(o, {}) end)
         local b = spawn(function() return getmetatable(o) end)
         a:join() b:join()",
    ),
    (
        "loop_in_one_piece",
        "index 1",
        "local sum = {0}
         parallel for i = 1, 10 do sum[1] = sum[1] + i end",
    ),
    (
        "neighbours",
        "index",
        "local t = {0, 0, 0, 0, 0}
         parallel for i = 2, 5 do t[i] = t[i - 1] + 1 end",
    ),
    (
        "inner_loops",
        "field 'n'",
        "local t = {n = 0}
         parallel for i = 1, 2 do
           parallel for j = 1, 2 do if j == 1 then t.n = i end end
         end",
    ),
    (
        "invoke",
        "field 'n'",
        "local t = {n = 0}
         parallel.invoke(function() t.n = 1 end, function() t.n = 2 end)",
    ),
    (
        "map_function",
        "field 'n'",
        "local t = {n = 0}
         parallel.map({1, 2, 3}, function(x) t.n = x return x end)",
    ),
    (
        "reader_after_atomic",
        "field 'n'",
        "local t = {n = 0}
         local a = spawn(function() atomic.add(t, 'n', 1) end)
         local b = spawn(function() return t.n end)
         a:join() b:join()",
    ),
    (
        "different_locks",
        "field 'n'",
        "local t = {n = 0}
         local l, m = mutex(), mutex()
         local a = spawn(function() l:with(function() t.n = 1 end) end)
         local b = spawn(function() m:with(function() t.n = 2 end) end)
         a:join() b:join()",
    ),
    (
        "readers_write",
        "field 'n'",
        "local t = {n = 0}
         local l = rwlock()
         local function work(v) l:read(function() t.n = v end) end
         local a, b = spawn(work, 1), spawn(work, 2)
         a:join() b:join()",
    ),
    (
        "not_joined",
        "field 'n'",
        "local t = {n = 0}
         local a = spawn(function() t.n = 1 end)
         task.sleep(0.1)
         t.n = 2",
    ),
    (
        "in_a_coroutine",
        "field 'n'",
        "local t = {n = 0}
         local function work() coroutine.wrap(function() t.n = 1 coroutine.yield() end)() end
         local a, b = spawn(work), spawn(work)
         a:join() b:join()",
    ),
    (
        "after_an_error",
        "field 'n'",
        "local t = {n = 0}
         pcall(function() parallel for i = 1, 4 do error('x') end end)
         local a = spawn(function() t.n = 1 end)
         t.n = 2
         a:join()",
    ),
];

#[test]
fn every_kind_of_place_is_told() {
    for (name, about, source) in RACY {
        let folder = folder(name);
        fs::write(folder.join("program.vua"), source).unwrap();
        for seed in SEEDS {
            let (races, status) = told(&folder, seed, &[]);
            assert_eq!(status, Some(1), "{name}, seed {seed}: {races:?}");
            assert!(
                races.first().is_some_and(|race| {
                    race.starts_with("vua: data race: ") && race.contains(about)
                }),
                "{name}, seed {seed}: {races:?}"
            );
            let last = races.last().unwrap();
            assert!(
                last.ends_with(" data race found") || last.ends_with(" data races found"),
                "{name}, seed {seed}: {races:?}"
            );
        }
    }
}

/// In these nothing races.
const ORDERED: &[(&str, &str)] = &[
    (
        "spawn_join",
        "local t = {n = 0}
         t.n = 1
         local a = spawn(function() t.n = t.n + 1 return t end)
         print(a:join().n, t.n)
         local b = spawn(function() t.n = t.n + 1 end)
         print(b:pjoin())
         t.n = t.n + 1
         local first = task.any { spawn(function() t.n = 9 end) }
         print(t.n)",
    ),
    (
        "scope",
        "local t = {n = 0}
         do
           local s <close> = task.scope()
           s:spawn(function() t.n = 1 end)
           s:join()
           t.n = t.n + 1
           s:spawn(function() t.n = t.n + 1 end)
         end
         t.n = t.n + 1",
    ),
    (
        "different_keys",
        "local t = {}
         local a = spawn(function() for i = 1, 50 do t[i] = i end end)
         local b = spawn(function() for i = 51, 100 do t[i] = i t['k' .. i] = i end end)
         a:join() b:join()
         print(#t, t.k60)",
    ),
    (
        "readers",
        "local t = {1, 2, 3, x = 4}
         local function read()
           local n = #t
           for k, v in pairs(t) do n = n + v end
           for i, v in ipairs(t) do n = n + v end
           return n + t.x
         end
         local a, b = spawn(read), spawn(read)
         print(a:join() + b:join())",
    ),
    (
        "loops",
        "local out, back = {}, {}
         parallel for i = 1, 300 do out[i] = i end
         parallel for i = 1, 300 do back[i] = out[301 - i] end
         parallel for i = 1, 5 do
           local row = {}
           parallel for j = 1, 5 do row[j] = i * j end
           for j = 1, 5 do row[j] = row[j] + 1 end
           out[i] = row
         end
         local sum, longest = 0, 0
         parallel for i = 1, 2000 reduce sum +, longest max do sum = sum + i; longest = math.max(longest, i) end
         parallel for k, v in pairs(back) do back[k] = v + 1 end
         for i = 300, 301 do back[i] = 1 end
         print(sum, longest, #back)",
    ),
    (
        "parallel_library",
        "local t = {}
         for i = 1, 5000 do t[i] = (i * 7919) % 5003 end
         parallel.sort(t)
         local doubled = parallel.map(t, function(x) return 2 * x end)
         print(parallel.reduce(1, #t, 0, function(acc, i) return acc + doubled[i] end, function(a, b) return a + b end))
         local x, y = {}, {}
         parallel.invoke(function() x.v = 1 end, function() y.v = 2 end)
         print(x.v + y.v)",
    ),
    (
        "mutex",
        "local t = {n = 0}
         local m <const> = mutex()
         local function work()
           for i = 1, 20 do m:with(function() t.n = t.n + 1 end) end
           local l <close> = m:lock()
           t.n = t.n + 1
         end
         local a, b = spawn(work), spawn(work)
         parallel for i = 1, 20 do m:lock() t.n = t.n + 1 m:unlock() end
         a:join() b:join()
         print(t.n)",
    ),
    (
        "rwlock",
        "local t = {n = 0}
         local l = rwlock()
         local function write() l:write(function() t.n = t.n + 1 end) end
         local function read() return l:read(function() return t.n end) end
         local all = {}
         for i = 1, 10 do all[i] = spawn(i % 3 == 0 and write or read) end
         for i = 1, 10 do all[i]:join() end
         print(t.n)",
    ),
    (
        "semaphore",
        "local t = {n = 0}
         local s, ready = semaphore(1), semaphore(0)
         local function work() s:acquire() t.n = t.n + 1 s:release() end
         local a, b = spawn(work), spawn(work)
         local box = {}
         local c = spawn(function() box.v = 5 ready:release() end)
         ready:acquire()
         print(box.v)
         a:join() b:join() c:join()",
    ),
    (
        "condition",
        "local m = mutex()
         local c, box = condition(m), {}
         local a = spawn(function() m:lock() while not box.v do c:wait() end box.v = box.v + 1 m:unlock() end)
         m:lock() box.v = 1 c:signal() m:unlock()
         a:join()
         print(box.v)",
    ),
    (
        "barrier",
        "local b, t, u = barrier(3), {}, {}
         local function work(i)
           for round = 1, 5 do
             t[i] = round
             b:wait()
             u[i] = t[1] + t[2] + t[3]
             b:wait()
           end
         end
         local all = {}
         for i = 1, 3 do all[i] = spawn(work, i) end
         for i = 1, 3 do all[i]:join() end
         print(u[1])",
    ),
    (
        "queue",
        "local q = queue(3)
         local p = spawn(function() for i = 1, 30 do q:push({v = i}) end q:close() end)
         local total = {n = 0}
         local m = mutex()
         local function consume()
           for x in function() return q:pop() end do
             x.v = x.v * 2
             m:with(function() total.n = total.n + x.v end)
           end
         end
         local a, b = spawn(consume), spawn(consume)
         p:join() a:join() b:join()
         print(total.n)",
    ),
    (
        "queue_room",
        "local q, slots = queue(2), {0, 0}
         local p = spawn(function() for i = 1, 10 do q:push(1) if i > 1 then slots[1] = i end end end)
         p:cancel()
         pcall(p.join, p)
         while q:pop(0) do end
         local r = queue(1)
         local buffer = {}
         local c = spawn(function() for i = 1, 10 do local x = buffer[1] r:pop() end end)
         r:push(1)
         c:cancel() c:pjoin()",
    ),
    (
        "map",
        "local d = map()
         local a = spawn(function() d:set('box', {v = 1}) end)
         local b = spawn(function() d:update('list', function(old) return {v = 2} end) end)
         local x, y
         repeat x, y = d:get('box'), d:get('list') task.yield() until x and y
         x.v = x.v + y.v
         for k, v in d:pairs() do v.w = 1 end
         d:add('n', 1)
         print(x.v)
         a:join() b:join()",
    ),
    (
        "atomic",
        "local t, box = {n = 0, flag = 0}, {}
         parallel for i = 1, 50 do atomic.add(t, 'n', 1) end
         local a = spawn(function() box.v = 3 atomic.store(t, 'flag', 1) end)
         while atomic.load(t, 'flag') == 0 do task.yield() end
         print(box.v, t.n)
         a:join()
         local xs = reg.array(2)
         parallel for i = 1, 50 do atomic.add(xs, 1, 1) atomic.cas(xs, 2, 0, 1) end
         print(xs[1], xs[2])
         local once = {}
         parallel for i = 1, 50 do if atomic.cas(t, 'owner', nil, i) then once.v = i end end
         print(once.v ~= nil)",
    ),
    (
        "require",
        "package.preload.counter = function() local m = {} m.n = 1 task.yield() m.n = 2 return m end
         local function use() return require('counter').n end
         local a, b = spawn(use), spawn(use)
         print(a:join() + b:join() + use())",
    ),
    (
        "cancel",
        "local t = {n = 0}
         local a = spawn(function()
           local c <close> = setmetatable({}, {__close = function() t.n = t.n + 1 end})
           task.sleep(100)
         end)
         task.sleep(0.001)
         t.n = 1
         a:cancel()
         a:pjoin()
         t.n = t.n + 1",
    ),
    (
        "errors",
        "local t = {n = 0}
         pcall(function() parallel for i = 1, 40 do if i == 7 then t.n = 1 error('x') end end end)
         t.n = 2
         pcall(function() parallel for i = 1, 40 do parallel for j = 1, 3 do if i == 9 and j == 2 then t.n = 3 error('x') end end end end)
         t.n = 4
         local a = spawn(function() t.n = 5 error('y') end)
         a:pjoin()
         t.n = 6",
    ),
    (
        "coroutine_goes_round",
        "local t = {n = 0}
         local co = coroutine.create(function() while true do t.n = t.n + 1 coroutine.yield() end end)
         local m = mutex()
         local function work() m:with(function() coroutine.resume(co) end) end
         local a, b = spawn(work), spawn(work)
         a:join() b:join()
         coroutine.resume(co)
         local other = coroutine.wrap(function() local out = {} parallel for i = 1, 5 do out[i] = i end return #out end)
         print(other(), t.n)",
    ),
    (
        "finalizer",
        "local dropped = {n = 0}
         local m = mutex()
         do
           for i = 1, 5 do
             local o = setmetatable({v = {1}}, {__gc = function(o) o.v[1] = 2 m:with(function() dropped.n = dropped.n + 1 end) end})
             o.v[1] = i
             spawn(function() o.v[1] = o.v[1] + 1 end):join()
           end
         end
         collectgarbage()
         collectgarbage()
         local a = spawn(function() end)
         print(m:with(function() return dropped.n >= 0 end))
         a:join()",
    ),
    (
        "collectgarbage_waits",
        "local log = {}
         local a = spawn(function() end)
         for i = 1, 3 do
           do local o = setmetatable({v = 1}, {__gc = function(o) log[#log + 1] = o.v end}) o.v = i end
           collectgarbage()
           log[#log + 1] = i
         end
         a:join()",
    ),
    (
        "freeze",
        "local t = {1, 2, x = {y = 1}}
         local a = spawn(function() pcall(function() while true do t.x.y = t.x.y + 1 end end) end)
         freeze(t)
         local b = spawn(function() return #t + t.x.y end)
         print(#t, b:join() > 2)
         a:join()",
    ),
    (
        "addresses_are_used_again",
        "local m = mutex()
         local a = spawn(function() for i = 1, 30 do local t = {i, x = i} local f = function() t[1] = t[1] + 1 end f() collectgarbage() end end)
         local b = spawn(function() for i = 1, 30 do local t = {i, x = i} t.x = 2 t[1] = 3 collectgarbage() end end)
         for i = 1, 30 do local t = {} t[1] = i t.x = 1 collectgarbage() end
         a:join() b:join()",
    ),
    (
        "structs",
        "struct P x: f64 y: f64 end
         local ps: P[] = P.array(100)
         parallel for i = 1, 100 do ps[i].x = i ps[i].y = 1 end
         local copy = P.array(100)
         parallel for i = 1, 100 do copy[i] = ps[i] end
         ps[1], ps[2] = ps[2], ps[1]
         local low, high = ps:slice(1, 50), ps:slice(51, 100)
         local a, b = spawn(function() low[1].x = 2 end), spawn(function() high[1].x = 3 end)
         a:join() b:join()
         print(copy[100].x, ps[1].x)",
    ),
];

#[test]
fn what_is_ordered_is_not_told() {
    for (name, source) in ORDERED {
        let folder = folder(name);
        fs::write(folder.join("program.vua"), source).unwrap();
        for seed in SEEDS {
            // Where memory is taken back between any two instructions, other objects come to lie there.
            let options: &[&str] = if seed % 4 == 0 { &["--gc-stress"] } else { &[] };
            let (races, status) = told(&folder, seed, options);
            assert_eq!(
                (races, status),
                (Vec::new(), Some(0)),
                "{name}, seed {seed}"
            );
        }
    }
}

#[test]
fn a_race_is_told_with_both_tracebacks_and_once() {
    let folder = folder("told");
    let source = "local stats = {hits = 0}
local function count(n)
  for i = 1, n do
    stats.hits = stats.hits + 1
  end
end
local t = spawn(count, 50)
count(50)
t:join()
print('done')
";
    fs::write(folder.join("program.vua"), source).unwrap();
    let output = vua(&folder, &[], "program.vua", &[]);
    assert_eq!(output, vua(&folder, &[], "program.vua", &[]));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "done\n");
    let told = text(&output.stderr);
    let by_main = "\n\tprogram.vua:4: in local 'count'\n\tprogram.vua:8: in main chunk";
    let by_task =
        "\n\tprogram.vua:4: in function 'count'\n\tspawned at program.vua:7 in main chunk";
    assert!(
        told.starts_with("vua: data race: field 'hits' of upvalue 'stats' is "),
        "{told}"
    );
    assert!(told.contains(by_main), "{told}");
    assert!(told.contains(by_task), "{told}");
    assert!(told.contains("by task 1") && told.contains("by task 2"));
    assert!(told.contains("\n  and "), "{told}");
    assert!(told.ends_with("\nvua: 1 data race found\n"), "{told}");
    assert_eq!(told.matches("data race:").count(), 1);
}

#[test]
fn a_programs_own_status_stays() {
    let folder = folder("status");
    let source = "local n = 0
                  local t = spawn(function() n = 1 end)
                  n = 2
                  t:join()
                  os.exit(7, true)";
    fs::write(folder.join("program.vua"), source).unwrap();
    let output = vua(&folder, &[], "program.vua", &[]);
    assert_eq!(output.status.code(), Some(7));
    assert!(text(&output.stderr).ends_with("vua: 1 data race found\n"));
}

/// Programs that look without an atomic operation whether there is anything to do for one: races that they mean to have.
const LOOK_FIRST: [&str; 2] = ["bfs.vua", "word_count.vua"];

#[test]
fn the_benchmarks_race_where_they_mean_to() {
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../programs/bench/parallel");
    let mut found = 0;
    for entry in fs::read_dir(&programs).unwrap() {
        let path = entry.unwrap().path();
        let source = fs::read_to_string(&path).unwrap();
        let file = path.file_name().unwrap().to_str().unwrap();
        let (arguments, output) = source
            .lines()
            .find_map(|line| line.strip_prefix("-- small ")?.split_once(": "))
            .unwrap();
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        let run = vua(&programs, &["--schedule-seed", "5"], file, &arguments);
        assert_eq!(text(&run.stdout), format!("{output}\n"), "{file}");
        let races = text(&run.stderr).matches("vua: data race: ").count();
        if LOOK_FIRST.contains(&file) {
            assert!(
                races >= 1 && run.status.code() == Some(1),
                "{file}: {}",
                text(&run.stderr)
            );
            assert!(text(&run.stderr).contains("[native]: in function 'atomic."));
        } else {
            assert_eq!(
                (text(&run.stderr), run.status.code()),
                ("", Some(0)),
                "{file}"
            );
        }
        found += 1;
    }
    assert!(found >= 20);
}
