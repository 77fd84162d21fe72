//! Shared tables under many threads, with the growth protocol in small: a thread stands for a core and passes a safepoint
//! between operations. Every assertion holds in any interleaving; the interleavings themselves are the host's.

extern crate std;

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{HashMap, HashSet};
use std::format;
use std::string::String;
use std::thread;
use std::vec::Vec;

use super::{GrowthStart, Next, SetError, Table};
use crate::heap::testing::{Memory, Numbers};
use crate::heap::{Heap, LocalHeap};
use crate::object::{Gc, Str};
use crate::value::Value;

const THREADS: usize = 4;
const COUNT: i64 = if cfg!(miri) { 24 } else { 4000 };

/// Handles may be used by the threads of a test.
#[derive(Clone, Copy)]
struct Shared(Gc<Table>);

// SAFETY: the table is published, so any core may use it.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn table(&self) -> Gc<Table> {
        self.0
    }
}

/// Which handshake each core has taken part in last; one that runs no more counts as having passed all.
struct Cores {
    asked: AtomicU64,
    passed: [AtomicU64; THREADS],
}

impl Cores {
    fn new() -> Cores {
        Cores {
            asked: AtomicU64::new(0),
            passed: [const { AtomicU64::new(0) }; THREADS],
        }
    }

    fn safepoint(&self, core: usize) {
        let asked = self.asked.load(Ordering::SeqCst);
        self.passed[core].store(asked, Ordering::SeqCst);
    }

    /// Waits until every running core has passed a safepoint after this call began.
    fn handshake(&self, core: usize) {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        loop {
            self.safepoint(core);
            let passed = |p: &AtomicU64| p.load(Ordering::SeqCst) >= mine;
            if self.passed.iter().all(passed) {
                return;
            }
            thread::yield_now();
        }
    }
}

/// A thread that stands for a core.
struct Core<'a> {
    index: usize,
    cores: &'a Cores,
    local: LocalHeap,
}

impl Core<'_> {
    fn safepoint(&self) {
        self.cores.safepoint(self.index);
    }

    /// Runs an operation as an instruction does: again, after what it needs, until it succeeds.
    fn run<T>(&self, table: Gc<Table>, mut operation: impl FnMut() -> Result<T, SetError>) -> T {
        loop {
            let result = operation();
            match result {
                Ok(value) => {
                    self.safepoint();
                    return value;
                }
                Err(SetError::Grow) => {
                    if table.grow_begin() == GrowthStart::Started {
                        self.cores.handshake(self.index);
                        let mut poll = || self.safepoint();
                        let retired = table.grow_finish(&self.local, &mut poll).unwrap();
                        self.cores.handshake(self.index);
                        // SAFETY: every core has passed a safepoint since.
                        unsafe { retired.release(&self.local) };
                    }
                }
                Err(SetError::Growing) => thread::yield_now(),
                Err(error) => panic!("{error:?}"),
            }
            self.safepoint();
        }
    }

    fn set(&self, table: Gc<Table>, key: Value, value: Value) {
        self.run(table, || table.set(&self.local, key, value));
    }

    fn string(&self, text: &str) -> Value {
        Str::new(&self.local, text.as_bytes()).unwrap().value()
    }
}

fn shared_table(heap: &'static Heap, dense: usize, nodes: usize) -> (LocalHeap, Shared) {
    let local = LocalHeap::new(heap, THREADS);
    let table = Table::new(&local, dense, nodes).unwrap();
    local.publish(table.value(), &mut || ()).unwrap();
    (local, Shared(table))
}

/// Runs `work` on each core at once.
fn on_all(heap: &'static Heap, work: impl Fn(&Core<'_>) + Sync) {
    let cores = Cores::new();
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (cores, work) = (&cores, &work);
            scope.spawn(move || {
                let core = Core {
                    index,
                    cores,
                    local: LocalHeap::new(heap, index),
                };
                work(&core);
                cores.passed[index].store(u64::MAX, Ordering::SeqCst);
            });
        }
    });
}

/// The key number `i` of a thread, of several sorts, and the value that belongs to it.
fn pair(core: &Core<'_>, thread: i64, i: i64) -> (Value, Value) {
    let n = i * THREADS as i64 + thread;
    let key = match i % 4 {
        0 => core.string(&format!("key{n}")),
        1 => core.local.integer(-n - 1).unwrap(),
        2 => core.local.integer((1 << 50) + n).unwrap(),
        _ => Value::float(n as f64 + 0.5),
    };
    (key, Value::small(n as i32))
}

#[test]
fn each_core_finds_what_it_and_others_inserted() {
    let heap = Memory::heap(1 << 30);
    let (local, shared) = shared_table(heap, 0, 0);
    on_all(heap, |core| {
        let table = shared.table();
        let thread = core.index as i64;
        let mut numbers = Numbers(core.index as u64 + 1);
        for i in 0..COUNT {
            let (key, value) = pair(core, thread, i);
            core.set(table, key, value);
            // One's own are there at once, and stay.
            let mine = numbers.below(i as u64 + 1) as i64;
            let (key, value) = pair(core, thread, mine);
            assert_eq!(table.get(key), value);
            // Another's are there or not yet.
            let (key, value) = pair(core, numbers.below(THREADS as u64) as i64, mine);
            let found = table.get(key);
            assert!(found.is_nil() || found == value);
            core.safepoint();
        }
    });
    let table = shared.table();
    let core = Core {
        index: 0,
        cores: &Cores::new(),
        local,
    };
    for i in 0..COUNT {
        for thread in 0..THREADS as i64 {
            let (key, value) = pair(&core, thread, i);
            assert_eq!(table.get(key), value);
        }
    }
    assert_eq!(count(table), COUNT as usize * THREADS);
}

fn count(table: Gc<Table>) -> usize {
    let snapshot = table.begin_iteration();
    let (mut cursor, mut found) = (0, 0);
    loop {
        match table.next_at(snapshot, cursor) {
            Next::Entry { cursor: at, .. } => {
                cursor = at;
                found += 1;
            }
            Next::Pause(at) => cursor = at,
            Next::End => return found,
        }
    }
}

#[test]
fn cores_fill_an_empty_table_in_any_order() {
    let heap = Memory::heap(1 << 30);
    let (_local, shared) = shared_table(heap, 0, 0);
    let all = COUNT * THREADS as i64;
    on_all(heap, |core| {
        let table = shared.table();
        for i in 0..COUNT {
            // Interleaved, forwards on some cores and backwards on others: the root grows while leaves are filled.
            let at = if core.index % 2 == 0 {
                i
            } else {
                COUNT - 1 - i
            };
            let key = 1 + at * THREADS as i64 + core.index as i64;
            core.run(table, || {
                table.set_int(&core.local, key, Value::small(-(key as i32)))
            });
            assert_eq!(table.get_int(key), Value::small(-(key as i32)));
        }
    });
    let table = shared.table();
    for key in 1..=all {
        assert_eq!(table.get_int(key), Value::small(-(key as i32)));
    }
    assert_eq!(table.length(), all);
    assert!(table.node_block().is_static());
}

#[test]
fn no_write_is_lost_to_growth() {
    let heap = Memory::heap(1 << 30);
    let (_local, shared) = shared_table(heap, 0, 0);
    on_all(heap, |core| {
        let table = shared.table();
        let mine = core.string(&format!("counter{}", core.index));
        let ours = core.string("ours");
        for i in 0..COUNT {
            core.set(table, mine, Value::small(i as i32));
            // A plain store of the only writer.
            assert_eq!(table.get(mine), Value::small(i as i32));
            core.safepoint();
            // Read-modify-writes of all.
            core.run(table, || {
                let slot = table.slot_or_insert(&core.local, ours)?;
                loop {
                    let old = slot.load();
                    let new = Value::small(old.as_integer().unwrap_or(0) as i32 + 1);
                    if slot.compare_exchange(old, new).is_ok() {
                        return Ok(());
                    }
                }
            });
            // What makes it grow: keys that come and go.
            let (key, value) = pair(core, core.index as i64, i);
            core.set(table, key, value);
            if i % 3 != 0 {
                core.set(table, key, Value::NIL);
            }
            assert_eq!(table.get(mine), Value::small(i as i32));
        }
        let total = table.get(ours).as_integer().unwrap();
        assert!(total >= COUNT);
    });
    let local = LocalHeap::new(heap, 0);
    let ours = Str::new(&local, b"ours").unwrap().value();
    let total = shared.table().get(ours).as_integer();
    assert_eq!(total, Some(COUNT * THREADS as i64));
}

#[test]
fn an_iteration_gives_once_what_stays() {
    let heap = Memory::heap(1 << 30);
    let (local, shared) = shared_table(heap, 0, 0);
    let stay = if cfg!(miri) { 6 } else { 100 };
    {
        let cores = Cores::new();
        for passed in &cores.passed[1..] {
            passed.store(u64::MAX, Ordering::SeqCst);
        }
        let core = Core {
            index: 0,
            cores: &cores,
            local,
        };
        for i in 0..stay {
            core.set(
                shared.table(),
                core.string(&format!("stays{i}")),
                Value::TRUE,
            );
        }
    }
    on_all(heap, |core| {
        let table = shared.table();
        if core.index != 0 {
            for i in 0..COUNT {
                let (key, value) = pair(core, core.index as i64, i);
                core.set(table, key, value);
                let (key, _) = pair(core, core.index as i64, i / 2);
                core.set(table, key, Value::NIL);
            }
            return;
        }
        for _ in 0..if cfg!(miri) { 3 } else { 60 } {
            let mut given: HashMap<String, usize> = HashMap::new();
            let snapshot = table.begin_iteration();
            let mut cursor = 0;
            loop {
                match table.next_at(snapshot, cursor) {
                    Next::Entry {
                        cursor: at, key, ..
                    } => {
                        cursor = at;
                        if let Some(name) = key.as_str().and_then(|s| s.to_utf8())
                            && name.starts_with("stays")
                        {
                            *given.entry(name.into()).or_default() += 1;
                        }
                    }
                    Next::Pause(at) => cursor = at,
                    Next::End => break,
                }
                core.safepoint();
                if cursor % 16 == 0 {
                    thread::yield_now();
                }
            }
            assert_eq!(given.len(), stay);
            assert!(given.values().all(|n| *n == 1));
        }
    });
}

#[test]
fn insertion_and_removal_at_the_end_are_whole() {
    let heap = Memory::heap(1 << 30);
    let (_local, shared) = shared_table(heap, 4, 0);
    let taken: Vec<std::sync::Mutex<Vec<i64>>> =
        (0..THREADS).map(|_| std::sync::Mutex::default()).collect();
    on_all(heap, |core| {
        let table = shared.table();
        let mut mine = Vec::new();
        for i in 0..COUNT {
            let n = i * THREADS as i64 + core.index as i64;
            core.run(table, || {
                table.insert_whole(&core.local, Value::small(n as i32))
            });
            if i % 2 == 1 {
                let value = core.run(table, || table.remove_whole());
                // As many were inserted as removed, and this core inserted two.
                mine.push(value.as_integer().unwrap());
            }
        }
        *taken[core.index].lock().unwrap() = mine;
    });
    let table = shared.table();
    let mut all: Vec<i64> = taken
        .iter()
        .flat_map(|t| t.lock().unwrap().clone())
        .collect();
    for i in 1..=table.length() {
        all.push(table.get_int(i).as_integer().unwrap());
    }
    let distinct: HashSet<i64> = all.iter().copied().collect();
    assert_eq!(all.len(), COUNT as usize * THREADS);
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn a_metamethod_set_by_one_core_is_found_by_all_at_last() {
    let heap = Memory::heap(1 << 30);
    for _ in 0..if cfg!(miri) { 3 } else { 300 } {
        let (local, shared) = shared_table(heap, 0, 8);
        let name = Str::new(&local, b"__index").unwrap().value();
        let start = std::sync::Barrier::new(THREADS);
        on_all(heap, |core| {
            let table = shared.table();
            start.wait();
            if core.index == 0 {
                let own = core.string("__index");
                core.run(table, || table.set(&core.local, own, Value::TRUE));
            } else {
                for _ in 0..20 {
                    let own = core.string("__index");
                    let found = table.metamethod(0, own);
                    assert!(found.is_nil() || found == Value::TRUE);
                    core.safepoint();
                }
            }
        });
        assert_eq!(shared.table().metamethod(0, name), Value::TRUE);
    }
}
