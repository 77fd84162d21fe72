//! A core's part of the heap.

use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::Ordering;

use smp::safepoint::Control;

use super::block::{
    BLOCK_BYTES, Block, CLASSES, LARGE, MAX_SMALL, PAYLOAD_BYTES, STRIDES, class_of,
};
use super::collect::sweep;
use super::publish::WorkList;
use super::{Header, Heap, Kind, NeedMemory};
use crate::object::{BoxedInteger, Gc};
use crate::value::{Tag, Value};

/// Small allocations of at most this many different size classes succeed after one reservation.
const RESERVED_CLASSES: usize = 4;

/// A run of free cells of one class, and what else the class has.
struct Class {
    /// The next free cell.
    cursor: Cell<*mut u8>,
    /// Where the run ends.
    end: Cell<*mut u8>,
    /// Cells freed one by one; each holds the next one's address in its second word.
    freed: Cell<*mut u8>,
    /// The block that the run lies in, which may have more free cells behind it.
    block: Cell<*mut Block>,
}

impl Class {
    const fn new() -> Class {
        Class {
            cursor: Cell::new(null_mut()),
            end: Cell::new(null_mut()),
            freed: Cell::new(null_mut()),
            block: Cell::new(null_mut()),
        }
    }

    /// Forgets the free cells: the collection that follows finds them again.
    fn abandon(&self) {
        self.cursor.set(null_mut());
        self.end.set(null_mut());
        self.freed.set(null_mut());
        self.block.set(null_mut());
    }

    fn swap(&self, other: &Class) {
        self.cursor.swap(&other.cursor);
        self.end.swap(&other.end);
        self.freed.swap(&other.freed);
        self.block.swap(&other.block);
    }
}

/// The classes of a program that this core is not running now.
struct Aside {
    program: u32,
    classes: Vec<Class>,
}

/// A core's part of the heap: allocation without lock or atomic instruction.
///
/// It belongs to the core that runs; others may look into it only in the collector's pause. All its methods take
/// `&self` because a safepoint inside one of them may use it too.
pub struct LocalHeap {
    classes: [Class; CLASSES],
    heap: &'static Heap,
    cpu: u32,
    program: Cell<u32>,
    /// Zeroed blocks already charged to the program, through [`Block::next`].
    stock: Cell<*mut Block>,
    stocked: Cell<usize>,
    aside: UnsafeCell<Vec<Aside>>,
    /// What publication still has to look at: a root of the collector.
    pub(super) work: WorkList,
    /// Objects under construction across a safepoint: roots of the collector.
    building: [Cell<Option<NonNull<Header>>>; 2],
    /// Objects that the collector asked to see before they change.
    log: UnsafeCell<Vec<NonNull<Header>>>,
    /// The log had no room: the collector must look at everything again.
    log_overflowed: Cell<bool>,
    /// Where this core is asked to collect at its next safepoint.
    control: Cell<Option<&'static Control>>,
    /// Blocks and large objects that it has taken, ever.
    taken: Cell<u64>,
    /// The last allocation that failed was made to.
    made_to_fail: Cell<bool>,
}

impl LocalHeap {
    /// Core `cpu`'s part of `heap`, allocating for program 0.
    pub fn new(heap: &'static Heap, cpu: usize) -> LocalHeap {
        LocalHeap {
            classes: [const { Class::new() }; CLASSES],
            heap,
            cpu: cpu as u32,
            program: Cell::new(0),
            stock: Cell::new(null_mut()),
            stocked: Cell::new(0),
            aside: UnsafeCell::new(Vec::new()),
            work: WorkList::new(),
            building: [const { Cell::new(None) }; 2],
            log: UnsafeCell::new(Vec::new()),
            log_overflowed: Cell::new(false),
            control: Cell::new(None),
            taken: Cell::new(0),
            made_to_fail: Cell::new(false),
        }
    }

    /// The core's control, through which it is asked to collect.
    pub fn set_control(&self, control: &'static Control) {
        self.control.set(Some(control));
    }

    /// How many blocks and large objects the core has taken: it rises when an allocation off the fast path succeeds.
    pub(crate) fn taken(&self) -> u64 {
        self.taken.get()
    }

    /// Whether an allocation failed because it was made to, for a test, since this was asked last: then there is memory.
    pub(crate) fn was_made_to_fail(&self) -> bool {
        self.made_to_fail.take()
    }

    /// Whether this allocation is to fail.
    #[inline(always)]
    fn fails(&self) -> bool {
        let fails = self.heap.collector.fails();
        if fails {
            self.made_to_fail.set(true);
        }
        fails
    }

    /// Asks this core to collect at its next safepoint.
    #[cold]
    fn ask_collection(&self) {
        if let Some(control) = self.control.get() {
            control.poll.fetch_or(super::COLLECT, Ordering::Relaxed);
        }
    }

    /// Counts what the core has taken to fill.
    fn count_taken(&self, bytes: usize) {
        self.taken.set(self.taken.get() + 1);
        if self.heap.collector.count(bytes) {
            self.ask_collection();
        }
    }

    /// The common part.
    #[inline(always)]
    pub fn heap(&self) -> &'static Heap {
        self.heap
    }

    /// The program that allocations are charged to.
    #[inline(always)]
    pub fn program(&self) -> u32 {
        self.program.get()
    }

    /// Memory for an object of `bytes`, at least 8 and best known at compile time: aligned to 16, zeroed if `bytes` is
    /// at most [`MAX_SMALL`](super::block::MAX_SMALL), else with its first 16 bytes zeroed and anything in the rest.
    /// `None` when a collection is needed.
    ///
    /// The caller writes a header before the next safepoint, or [`free`](Self::free)s it.
    #[inline(always)]
    pub fn alloc(&self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > MAX_SMALL {
            return self.alloc_large(bytes);
        }
        let class = class_of(bytes);
        let run = &self.classes[class];
        let cell = run.cursor.get();
        let next = cell.wrapping_add(STRIDES[class] as usize);
        if next <= run.end.get() {
            run.cursor.set(next);
            // SAFETY: a run that is not empty lies in a block, so it is not at address 0.
            Some(unsafe { NonNull::new_unchecked(cell) })
        } else {
            self.alloc_slow(class)
        }
    }

    /// As [`alloc`](Self::alloc), with the header written and the error ready to hand on.
    #[inline(always)]
    pub fn alloc_object(
        &self,
        kind: Kind,
        word: u32,
        bytes: usize,
    ) -> Result<NonNull<Header>, NeedMemory> {
        let Some(cell) = self.alloc(bytes) else {
            return Err(NeedMemory { bytes });
        };
        let header = cell.cast::<Header>();
        // SAFETY: `alloc` gave memory for at least a header, aligned to 16, that nobody else knows, in a block in use.
        unsafe {
            header.write(Header::new(kind, word));
            let notes = kind.notes();
            if notes != 0 {
                Block::of(header).as_ref().note(notes);
            }
        }
        Ok(header)
    }

    #[cold]
    #[inline(never)]
    fn alloc_slow(&self, class: usize) -> Option<NonNull<u8>> {
        if self.fails() {
            return None;
        }
        let run = &self.classes[class];
        let stride = STRIDES[class] as usize;
        if let Some(cell) = NonNull::new(run.freed.get()) {
            // SAFETY: a freed cell is the list's alone and holds the next one's address in its second word, which is
            // cleared, as its other words are.
            unsafe {
                let second = cell.cast::<*mut u8>().add(1);
                run.freed.set(second.read());
                second.write(null_mut());
            }
            return Some(cell);
        }
        loop {
            if let Some(block) = NonNull::new(run.block.get()) {
                // SAFETY: the block is this core's to fill, and of this class.
                if let Some((first, end)) = unsafe { sweep::next_run(block, stride) } {
                    run.cursor.set(first.as_ptr().wrapping_add(stride));
                    run.end.set(end);
                    if self.heap.collector.is_failing() {
                        self.hold_back(run, block, first, stride);
                    }
                    return Some(first);
                }
                run.block.set(null_mut());
            }
            let available = self.heap.take_available(self.program.get(), class);
            let block = match available {
                Some((block, free)) => {
                    self.count_taken(free);
                    // SAFETY: the block is this core's to fill.
                    unsafe { block.as_ref() }
                        .cpu
                        .store(self.cpu, Ordering::Relaxed);
                    block
                }
                None => {
                    let block = self.take_stock()?;
                    // SAFETY: the block came out of the stock, so it is ours alone; it is zero behind its header.
                    unsafe { block.as_ref() }
                        .class
                        .store(class as u32, Ordering::Relaxed);
                    let first = Block::payload(block);
                    run.block.set(block.as_ptr());
                    run.cursor.set(first.as_ptr().wrapping_add(stride));
                    run.end
                        .set(first.as_ptr().wrapping_add(PAYLOAD_BYTES / stride * stride));
                    if self.heap.collector.is_failing() {
                        self.hold_back(run, block, first, stride);
                    }
                    return Some(first);
                }
            };
            run.block.set(block.as_ptr());
        }
    }

    /// While allocations are made to fail each comes by the slow path: the rest of a run is swept again.
    fn hold_back(&self, run: &Class, block: NonNull<Block>, first: NonNull<u8>, stride: usize) {
        run.cursor.set(null_mut());
        run.end.set(null_mut());
        // SAFETY: the run was just begun in this core's block.
        unsafe { sweep::sweep_again(block, first, stride) };
    }

    fn alloc_large(&self, bytes: usize) -> Option<NonNull<u8>> {
        if self.fails() {
            return None;
        }
        let whole = bytes.checked_add(size_of::<Block>())?;
        let (block, _) = self.heap.take(self.program.get(), whole)?;
        self.count_taken(bytes);
        // SAFETY: the run of blocks is ours alone.
        unsafe {
            block.as_ref().cpu.store(self.cpu, Ordering::Relaxed);
            let start = Block::payload(block);
            start.write_bytes(0, 16);
            Some(start)
        }
    }

    /// A zeroed block, charged to the program.
    fn take_stock(&self) -> Option<NonNull<Block>> {
        if let Some(block) = NonNull::new(self.stock.get()) {
            // SAFETY: blocks in the stock are ours alone.
            self.stock
                .set(unsafe { block.as_ref() }.next.load(Ordering::Relaxed));
            self.stocked.set(self.stocked.get() - 1);
            return Some(block);
        }
        self.take_block()
    }

    fn take_block(&self) -> Option<NonNull<Block>> {
        let (block, zeroed) = self.heap.take(self.program.get(), BLOCK_BYTES)?;
        self.count_taken(PAYLOAD_BYTES);
        // SAFETY: the block is ours alone.
        unsafe {
            block.as_ref().cpu.store(self.cpu, Ordering::Relaxed);
            if !zeroed {
                Block::payload(block).write_bytes(0, PAYLOAD_BYTES);
            }
            // Whoever walks the heap sees a block of free cells.
            block.as_ref().class.store(0, Ordering::Relaxed);
        }
        Some(block)
    }

    /// Makes sure that allocations of at most [`MAX_SMALL`](super::block::MAX_SMALL) bytes each, `bytes` in all and of
    /// at most four different sizes, succeed until the next reservation or safepoint.
    #[inline]
    pub fn reserve(&self, bytes: usize) -> Result<(), NeedMemory> {
        if self.stocked.get() >= RESERVED_CLASSES
            && bytes <= PAYLOAD_BYTES / 2
            && !self.heap.collector.is_failing()
        {
            Ok(())
        } else {
            self.reserve_slow(bytes)
        }
    }

    #[cold]
    fn reserve_slow(&self, bytes: usize) -> Result<(), NeedMemory> {
        if self.fails() {
            return Err(NeedMemory { bytes });
        }
        // Whatever the size, what is asked for fills at least half of a full block; and of each class one block may be all but empty.
        let blocks = RESERVED_CLASSES + bytes / (PAYLOAD_BYTES / 2);
        while self.stocked.get() < blocks {
            let Some(block) = self.take_block() else {
                return Err(NeedMemory { bytes });
            };
            // SAFETY: the block is ours alone.
            unsafe { block.as_ref() }
                .next
                .store(self.stock.get(), Ordering::Relaxed);
            self.stock.set(block.as_ptr());
            self.stocked.set(self.stocked.get() + 1);
        }
        Ok(())
    }

    /// Gives blocks held for reservations back to the pool, down to `keep`.
    pub fn trim(&self, keep: usize) {
        while self.stocked.get() > keep {
            let Some(block) = self.take_stock() else {
                return;
            };
            // SAFETY: the block was in the stock, so nothing uses it.
            unsafe { self.heap.give(block) };
        }
    }

    /// Charges later allocations to another program. Costs nothing if it is the same; else about a microsecond.
    ///
    /// Fails, and changes nothing, if there is no memory to remember where the former program was.
    pub fn set_program(&self, program: u32) -> Result<(), NeedMemory> {
        let former = self.program.get();
        if former == program {
            return Ok(());
        }
        self.trim(0);
        // SAFETY: no other reference to the list exists: this method makes the only ones and calls nothing that comes back here.
        let aside = unsafe { &mut *self.aside.get() };
        let need = NeedMemory {
            bytes: size_of::<Class>() * CLASSES,
        };
        let place = match aside.iter().position(|a| a.program == program) {
            Some(place) => place,
            None => {
                aside.try_reserve(1).map_err(|_| need)?;
                let mut classes = Vec::new();
                classes.try_reserve_exact(CLASSES).map_err(|_| need)?;
                classes.resize_with(CLASSES, Class::new);
                aside.push(Aside { program, classes });
                aside.len() - 1
            }
        };
        for (mine, theirs) in self.classes.iter().zip(&aside[place].classes) {
            mine.swap(theirs);
        }
        aside[place].program = former;
        self.program.set(program);
        Ok(())
    }

    /// Frees an object at once.
    ///
    /// # Safety
    /// `object` came from [`alloc`](Self::alloc) on some core with this `bytes`; nobody else can reach it or is still
    /// looking at it, and the collector does not have it on a list.
    pub unsafe fn free(&self, object: NonNull<Header>, bytes: usize) {
        // SAFETY: it came from `alloc`.
        let block = unsafe { Block::of(object) };
        // SAFETY: the header of a block in use is initialised.
        let header = unsafe { block.as_ref() };
        if header.class() == LARGE {
            // SAFETY: the object was the run's only one.
            unsafe { self.heap.give(block) };
            return;
        }
        let class = header.class() as usize;
        debug_assert_eq!(class, class_of(bytes));
        let stride = STRIDES[class] as usize;
        let cell = object.cast::<u8>();
        let offset = Block::offset(object);
        // SAFETY: the cell is `stride` long and nobody uses it. All zero is a cell without an object.
        unsafe { cell.write_bytes(0, stride) };
        let run = &self.classes[class];
        if cell.as_ptr().wrapping_add(stride) == run.cursor.get() {
            header.marks.clear(offset);
            run.cursor.set(cell.as_ptr());
            return;
        }
        // A cell that the sweeper has yet to come to is left to it: to whatever core that is, which finds it zeroed once it finds it unmarked.
        let is_mine = run.block.get() == block.as_ptr()
            && offset < header.swept.load(Ordering::Relaxed) as usize;
        let is_passed = is_mine || header.is_swept();
        header.marks.clear(offset);
        if is_passed && header.program() == self.program.get() {
            // SAFETY: every cell has at least two words; nobody but the next collection hands out the cell again.
            unsafe { cell.cast::<*mut u8>().add(1).write(run.freed.get()) };
            run.freed.set(cell.as_ptr());
        }
        // Else it waits for the sweeper: taking it would charge one program for another's object.
    }

    /// Whether there is room for an object of so many bytes; of small ones it is taken for granted.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        if bytes <= MAX_SMALL {
            return true;
        }
        match self.alloc_large(bytes) {
            Some(object) => {
                let header = object.cast::<Header>();
                // SAFETY: nobody else has heard of it.
                unsafe {
                    header.write(Header::new(Kind::String, 0));
                    self.free(header, bytes);
                }
                true
            }
            None => self.was_made_to_fail(),
        }
    }

    /// The value of an integer, boxed if it must be.
    #[inline(always)]
    pub fn integer(&self, i: i64) -> Result<Value, NeedMemory> {
        match Value::inline_integer(i) {
            Some(value) => Ok(value),
            None => self.boxed_integer(i),
        }
    }

    #[cold]
    fn boxed_integer(&self, i: i64) -> Result<Value, NeedMemory> {
        let object = self.alloc_object(Kind::BoxedInteger, 0, size_of::<BoxedInteger>())?;
        // SAFETY: the object is new, of that kind and ours alone.
        unsafe {
            BoxedInteger::set(object, i);
            Ok(Value::reference(Tag::BoxedInteger, object))
        }
    }

    /// Keeps up to two objects alive across safepoints while they are being built. The former ones are forgotten.
    pub(crate) fn keep<A, B>(&self, first: Option<Gc<A>>, second: Option<Gc<B>>) {
        self.building[0].set(first.map(|o| o.header_ptr()));
        self.building[1].set(second.map(|o| o.header_ptr()));
    }

    /// Calls `visit` with every object that this part of the heap itself keeps alive.
    ///
    /// # Safety
    /// By the core itself, or in the collector's pause.
    pub unsafe fn roots(&self, visit: &mut dyn FnMut(NonNull<Header>)) {
        for object in &self.building {
            if let Some(object) = object.get() {
                visit(object);
            }
        }
        self.work.each(visit);
    }

    /// Notes an object for the collector.
    pub(super) fn log(&self, object: NonNull<Header>) {
        // SAFETY: the only references to the log are made here and in `take_log`, and neither calls back.
        let log = unsafe { &mut *self.log.get() };
        if log.try_reserve(1).is_ok() {
            log.push(object);
        } else {
            self.log_overflowed.set(true);
        }
    }

    /// What [`barrier::before_store`](super::barrier::before_store) noted since the last call, and whether some did not fit.
    ///
    /// # Safety
    /// By the core itself, or in the collector's pause.
    pub unsafe fn take_log(&self) -> (Vec<NonNull<Header>>, bool) {
        // SAFETY: as in `log`.
        let log = unsafe { &mut *self.log.get() };
        (core::mem::take(log), self.log_overflowed.replace(false))
    }
}

impl LocalHeap {
    /// For the collector, before it looks at the heap: gives up all that the core holds for allocations to come.
    ///
    /// # Safety
    /// In the collector's pause.
    pub(super) unsafe fn abandon(&self) {
        self.trim(0);
        for class in &self.classes {
            class.abandon();
        }
        // SAFETY: nobody else uses the list in the pause.
        for aside in unsafe { &*self.aside.get() } {
            for class in &aside.classes {
                class.abandon();
            }
        }
    }

    /// Bytes of cells that the core has taken and not yet filled.
    pub(crate) fn unfilled(&self) -> usize {
        self.classes
            .iter()
            .map(|class| (class.end.get() as usize).saturating_sub(class.cursor.get() as usize))
            .sum()
    }
}

impl Drop for LocalHeap {
    fn drop(&mut self) {
        // Blocks with objects stay: other cores may know the objects. The stock goes back.
        self.trim(0);
    }
}
