//! Marking: a marker for each core that takes part, with a stack of objects to look into; work goes from core to core in segments.
//!
//! # The stack
//! An object is marked when its entry is taken off, not when it is put there: between the two lie [`AHEAD`] others, while memory fetches the object
//! and its mark. So an object may have several entries, all but the first of which find it marked; what refers to nothing, or has no room on the stack, is marked at once.
//!
//! An entry is an object and which slice of it is to be looked at: objects of many slots are cut into slices of [`SLICE`], and the rest of
//! such an object goes back on the stack, where another core can take it, before a slice is looked at. Entries lie in segments of a page.
//! A marker fills its own; whenever another core is out of work, the markers give segments, or half of the only one they have, to the
//! common list.
//!
//! Segments come from the Rust allocator. When it has none, the object is left marked, and its block noted for a *rescan*: when
//! all stacks are empty, every marked object in the noted blocks is looked into again. So marking needs one segment for each core, made with the heap, and
//! cannot fail.
//!
//! # The end
//! `active` counts the markers that may have work in hand; a marker counts itself before it takes a segment, and no longer when it
//! has nothing and the list is empty. Only active markers add to the list. So if the list is empty and, *after that*, nobody is active, there is no work left.
//!
//! # Memory orders
//! Everything that mutators wrote is visible: the stop is an acquire of it. Marks are relaxed, and two markers may both be the first to mark an object: a mark tells nothing about the object, and looking into one twice does no harm. A segment's
//! entries are handed over by the list's lock.

use alloc::alloc::{Layout, alloc, dealloc};
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use sync::lock::Lock;

use super::super::block::{BLOCK_BYTES, Block, Colour, RESCAN};
use super::super::pool::Pool;
use super::super::{Header, Heap, Kind, SLICE, Visit, flags};
use super::sweep;
use super::weak::{self, WeakTables, Weakness};
use crate::object::{Gc, NativeFunction, Proto};
use crate::table::{DenseBlock, NodeBlock, RadixNode, Table};
use crate::value::{Tag, Value};

/// Entries of a segment: with its header, a page.
const ENTRIES: usize = 510;

#[repr(C)]
struct Segment {
    next: *mut Segment,
    count: usize,
    entries: [u64; ENTRIES],
}

const _: () = assert!(size_of::<Segment>() == 4096);

/// Objects looked ahead: as far as memory takes to answer, at about ten nanoseconds an object.
const AHEAD: usize = 8;

/// How often a marker looks whether others are out of work.
const SHARE_EVERY: u32 = 64;

/// An entry: the object's address without its four zero bits, and the slice.
#[inline(always)]
fn entry(object: NonNull<Header>, slice: usize) -> u64 {
    (object.as_ptr().expose_provenance() as u64 >> 4) | (slice as u64) << 43
}

#[inline(always)]
fn parts(entry: u64) -> (*mut Header, usize) {
    let address = (entry & ((1 << 43) - 1)) << 4;
    (
        core::ptr::with_exposed_provenance_mut(address as usize),
        (entry >> 43) as usize,
    )
}

/// A list of segments.
struct List {
    first: *mut Segment,
}

// SAFETY: the segments on it are the list's alone.
unsafe impl Send for List {}

/// What the markers share.
pub(super) struct Shared {
    full: Lock<List>,
    full_count: AtomicUsize,
    spare: Lock<List>,
    /// Markers that may have work in hand.
    active: AtomicUsize,
    /// Markers that wait for work.
    hungry: AtomicUsize,
    /// A block has [`RESCAN`].
    overflowed: AtomicBool,
    /// Weak tables that were come to.
    weak: Lock<WeakTables>,
}

// SAFETY: the tables on its list are used in the pause only.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl Shared {
    /// With a segment for each of `cpus` markers.
    pub(super) fn new(cpus: usize) -> Shared {
        let shared = Shared {
            full: Lock::new(List { first: null_mut() }),
            full_count: AtomicUsize::new(0),
            spare: Lock::new(List { first: null_mut() }),
            active: AtomicUsize::new(0),
            hungry: AtomicUsize::new(0),
            overflowed: AtomicBool::new(false),
            weak: Lock::new(WeakTables::new()),
        };
        for _ in 0..cpus {
            if let Some(segment) = new_segment() {
                shared.put_spare(segment);
            }
        }
        shared
    }

    fn put_spare(&self, segment: NonNull<Segment>) {
        let mut spare = self.spare.lock();
        // SAFETY: the segment is ours alone.
        unsafe { (*segment.as_ptr()).next = spare.first };
        spare.first = segment.as_ptr();
    }

    fn get_segment(&self) -> Option<NonNull<Segment>> {
        let mut spare = self.spare.lock();
        match NonNull::new(spare.first) {
            Some(segment) => {
                // SAFETY: segments on the list are valid, and this one is taken off it.
                unsafe {
                    spare.first = (*segment.as_ptr()).next;
                    (*segment.as_ptr()).next = null_mut();
                    (*segment.as_ptr()).count = 0;
                }
                Some(segment)
            }
            None => {
                drop(spare);
                new_segment()
            }
        }
    }

    fn put_full(&self, segment: NonNull<Segment>) {
        let mut full = self.full.lock();
        // SAFETY: the segment is ours alone.
        unsafe { (*segment.as_ptr()).next = full.first };
        full.first = segment.as_ptr();
        self.full_count.fetch_add(1, Ordering::Release);
    }

    fn get_full(&self) -> Option<NonNull<Segment>> {
        if self.full_count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut full = self.full.lock();
        let segment = NonNull::new(full.first)?;
        // SAFETY: segments on the list are valid, and this one is taken off it.
        unsafe {
            full.first = (*segment.as_ptr()).next;
            (*segment.as_ptr()).next = null_mut();
        }
        self.full_count.fetch_sub(1, Ordering::Release);
        Some(segment)
    }

    /// Gives the memory of most spare segments back.
    pub(super) fn trim(&self, keep: usize) {
        let mut spare = self.spare.lock();
        let mut last = &mut spare.first;
        for _ in 0..keep {
            if last.is_null() {
                return;
            }
            // SAFETY: segments on the list are valid.
            last = unsafe { &mut (**last).next };
        }
        let mut rest = core::mem::replace(last, null_mut());
        while let Some(segment) = NonNull::new(rest) {
            // SAFETY: it came from `new_segment`, and is on no list any more.
            unsafe {
                rest = (*segment.as_ptr()).next;
                dealloc(segment.as_ptr().cast(), Layout::new::<Segment>());
            }
        }
    }

    /// Puts a weak table on the list; `false` for want of memory.
    fn note_weak(&self, table: Gc<Table>, weakness: Weakness) -> bool {
        let mut weak = self.weak.lock();
        let fits = weak.try_reserve(1).is_ok();
        if fits {
            weak.push((table, weakness));
        }
        fits
    }

    /// Weak table `i` of those on the list.
    fn weak_table(&self, i: usize) -> Option<(Gc<Table>, Weakness)> {
        self.weak.lock().get(i).copied()
    }

    fn is_done(&self) -> bool {
        // In this order: see the module.
        self.full_count.load(Ordering::Acquire) == 0 && {
            fence(Ordering::SeqCst);
            self.active.load(Ordering::Acquire) == 0
        }
    }
}

fn new_segment() -> Option<NonNull<Segment>> {
    #[cfg(test)]
    if testing::NO_SEGMENTS.get() {
        return None;
    }
    // SAFETY: the layout is not empty; all-zero is a valid segment once `next` and `count` are written.
    unsafe {
        let segment = NonNull::new(alloc(Layout::new::<Segment>()).cast::<Segment>())?;
        (*segment.as_ptr()).next = null_mut();
        (*segment.as_ptr()).count = 0;
        Some(segment)
    }
}

/// One core's part of marking. Kinds that the heap does not know are given one to tell what they refer to: see [`MarkHook`].
pub struct Marker<'a> {
    heap: &'a Heap,
    pool: &'a Pool,
    shared: &'a Shared,
    /// The segment that is filled and emptied; null for want of memory.
    current: *mut Segment,
    /// Full ones.
    rest: *mut Segment,
    ahead: [u64; AHEAD],
    ahead_at: usize,
    until_share: u32,
    /// The mark that objects get.
    colour: Colour,
    /// The metatable that it came to last, and what that says.
    last_metatable: (Option<Gc<Table>>, Option<Weakness>),
    /// Objects looked into, in bytes of entries: for the share of each core.
    pub(super) traced: u64,
}

/// Tells what an object of a kind refers to, by calling the marker for each of its references. The world is stopped; an object
/// may be seen more than once in a collection, by several cores at the same time.
pub type MarkHook = unsafe fn(object: NonNull<Header>, marker: &mut Marker<'_>);

impl<'a> Marker<'a> {
    pub(super) fn new(
        heap: &'a Heap,
        pool: &'a Pool,
        shared: &'a Shared,
        colour: Colour,
    ) -> Marker<'a> {
        Marker {
            colour,
            heap,
            pool,
            shared,
            current: shared.get_segment().map_or(null_mut(), |s| s.as_ptr()),
            rest: null_mut(),
            ahead: [0; AHEAD],
            ahead_at: 0,
            until_share: SHARE_EVERY,
            last_metatable: (None, None),
            traced: 0,
        }
    }

    /// The object that a value refers to is alive.
    #[inline(always)]
    pub fn value(&mut self, value: Value) {
        if let Some(object) = value.object() {
            if value.has_tag(Tag::String) || value.has_tag(Tag::BoxedInteger) {
                // They refer to nothing, and the names among them are come to over and over: their marks are in the cache.
                // SAFETY: a value's object lives.
                unsafe { self.keep(object) };
            } else {
                self.push(entry(object, 0));
            }
        }
    }

    /// This object is alive.
    ///
    /// # Safety
    /// It is an object of the heap, not a static one.
    #[inline(always)]
    pub unsafe fn object(&mut self, object: NonNull<Header>) {
        self.push(entry(object, 0));
    }

    /// This object is alive, but what it refers to is seen to by the caller.
    ///
    /// # Safety
    /// It is an object of the heap, not a static one.
    #[inline(always)]
    pub unsafe fn keep(&mut self, object: NonNull<Header>) -> bool {
        // SAFETY: an object of the heap, says the caller.
        let marks = unsafe { &Block::of(object).as_ref().marks };
        marks.mark(Block::offset(object), self.colour)
    }

    /// Whether the object is marked.
    ///
    /// # Safety
    /// It is an object of the heap, not a static one.
    #[inline(always)]
    pub unsafe fn is_marked(&self, object: NonNull<Header>) -> bool {
        // SAFETY: an object of the heap, says the caller.
        let marks = unsafe { &Block::of(object).as_ref().marks };
        marks.is_marked(Block::offset(object), self.colour)
    }

    /// Words that are values.
    ///
    /// # Safety
    /// There are `count` of them at `words`.
    #[inline(always)]
    pub unsafe fn values(&mut self, words: *const u64, count: usize) {
        for i in 0..count {
            // SAFETY: as the caller says.
            self.value(unsafe { Value::from_bits(*words.add(i)) });
        }
    }

    /// Words that may be values, raw numbers or left over from earlier: those that look like the reference of an object are taken for it, others ignored.
    ///
    /// # Safety
    /// There are `count` of them at `words`.
    pub unsafe fn words(&mut self, words: *const u64, count: usize) {
        for i in 0..count {
            // SAFETY: there is a word; it is used as a value only when it is known to refer to an object.
            let value = unsafe { Value::from_bits(*words.add(i)) };
            if !value.is_reference() {
                continue;
            }
            let address = value.address() as usize;
            if let Some(block) = self.pool.block_at(address)
                // SAFETY: the block is in use and the address lies in it.
                && unsafe { sweep::is_object(block, address) }
                && let Some(object) = NonNull::new(value.address())
            {
                // SAFETY: an object of the heap. The word's tag may lie, so its kind decides.
                unsafe { self.object(object) };
            }
        }
    }

    #[inline(always)]
    fn push(&mut self, entry: u64) {
        // SAFETY: `current` is null or this marker's own.
        unsafe {
            if !self.current.is_null() && (*self.current).count < ENTRIES {
                (*self.current).entries[(*self.current).count] = entry;
                (*self.current).count += 1;
                return;
            }
        }
        self.push_slow(entry);
    }

    #[cold]
    #[inline(never)]
    fn push_slow(&mut self, entry: u64) {
        match self.shared.get_segment() {
            Some(segment) => {
                // SAFETY: both segments are this marker's own.
                unsafe {
                    if !self.current.is_null() {
                        (*self.current).next = self.rest;
                        self.rest = self.current;
                    }
                    self.current = segment.as_ptr();
                    (*self.current).entries[0] = entry;
                    (*self.current).count = 1;
                }
            }
            None => {
                let (object, _) = parts(entry);
                if let Some(object) = NonNull::new(object) {
                    // SAFETY: entries are objects of the heap.
                    unsafe {
                        self.keep(object);
                        Block::of(object).as_ref().note(RESCAN);
                    }
                    self.shared.overflowed.store(true, Ordering::Release);
                }
            }
        }
    }

    #[inline(always)]
    fn pop(&mut self) -> Option<u64> {
        // SAFETY: segments in hand are this marker's own.
        unsafe {
            loop {
                if self.current.is_null() {
                    return None;
                }
                if (*self.current).count > 0 {
                    (*self.current).count -= 1;
                    return Some((*self.current).entries[(*self.current).count]);
                }
                let next = NonNull::new(self.rest)?;
                self.rest = core::mem::replace(&mut (*next.as_ptr()).next, null_mut());
                let empty = core::mem::replace(&mut self.current, next.as_ptr());
                if let Some(empty) = NonNull::new(empty) {
                    self.shared.put_spare(empty);
                }
            }
        }
    }

    /// Looks into what is in hand until nothing is.
    fn empty(&mut self) {
        loop {
            while let Some(next) = self.pop() {
                let (object, _) = parts(next);
                prefetch(object);
                prefetch_mark(object);
                let at = self.ahead_at;
                self.ahead_at = (at + 1) % AHEAD;
                let due = core::mem::replace(&mut self.ahead[at], next);
                if due != 0 {
                    self.visit(due);
                }
                self.until_share -= 1;
                if self.until_share == 0 {
                    self.until_share = SHARE_EVERY;
                    if self.shared.hungry.load(Ordering::Relaxed) != 0 {
                        self.share();
                    }
                }
            }
            let mut idle = true;
            for _ in 0..AHEAD {
                let at = self.ahead_at;
                self.ahead_at = (at + 1) % AHEAD;
                let due = core::mem::take(&mut self.ahead[at]);
                if due != 0 {
                    self.visit(due);
                    idle = false;
                }
            }
            if idle {
                return;
            }
        }
    }

    /// Gives others a part of what is in hand, if there is nothing for them yet.
    #[cold]
    fn share(&mut self) {
        if self.shared.full_count.load(Ordering::Relaxed) != 0 {
            return;
        }
        // SAFETY: segments in hand are this marker's own.
        unsafe {
            if let Some(segment) = NonNull::new(self.rest) {
                self.rest = (*segment.as_ptr()).next;
                self.shared.put_full(segment);
                return;
            }
            let current = &mut *self.current;
            let count = current.count;
            if count < 2 {
                return;
            }
            let Some(other) = self.shared.get_segment() else {
                return;
            };
            // The older half: what lies deeper leads to more.
            let half = count / 2;
            let other = &mut *other.as_ptr();
            other.entries[..half].copy_from_slice(&current.entries[..half]);
            other.count = half;
            current.entries.copy_within(half..count, 0);
            current.count = count - half;
            self.shared.put_full(NonNull::from(other));
        }
    }

    fn take_shared(&mut self) -> bool {
        match self.shared.get_full() {
            Some(segment) => {
                let empty = core::mem::replace(&mut self.current, segment.as_ptr());
                if let Some(empty) = NonNull::new(empty) {
                    self.shared.put_spare(empty);
                }
                true
            }
            None => false,
        }
    }

    /// This marker may have work from here on.
    pub(super) fn begin(&mut self) {
        self.shared.active.fetch_add(1, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// This marker, which began, has come to no work.
    pub(super) fn rest(&mut self) {
        self.shared.active.fetch_sub(1, Ordering::AcqRel);
    }

    /// Marks, its own and others' work, until there is none left (the collector, `ends` never true) or `ends` says so; then this marker has none.
    pub(super) fn run(&mut self, ends: &mut dyn FnMut() -> bool, relax: &mut dyn FnMut(u32)) {
        loop {
            self.empty();
            if self.take_shared() {
                continue;
            }
            self.shared.active.fetch_sub(1, Ordering::AcqRel);
            self.shared.hungry.fetch_add(1, Ordering::Relaxed);
            let mut rounds = 0;
            let more = loop {
                if self.shared.full_count.load(Ordering::Acquire) != 0 {
                    self.begin();
                    if self.take_shared() {
                        break true;
                    }
                    self.shared.active.fetch_sub(1, Ordering::AcqRel);
                }
                if ends() {
                    break false;
                }
                relax(rounds);
                rounds += 1;
            };
            self.shared.hungry.fetch_sub(1, Ordering::Relaxed);
            if !more {
                return;
            }
        }
    }

    /// For the collector: marks until nobody has work, blocks to be rescanned included.
    pub(super) fn finish(&mut self, relax: &mut dyn FnMut(u32)) {
        loop {
            let shared = self.shared;
            self.run(&mut || shared.is_done(), relax);
            if !shared.overflowed.swap(false, Ordering::AcqRel) {
                return;
            }
            self.begin();
            let pool = self.pool;
            pool.each(&mut |block| {
                // SAFETY: the header of a block in use is initialised; marked objects live.
                unsafe {
                    if block.as_ref().notes.load(Ordering::Relaxed) & RESCAN == 0 {
                        return;
                    }
                    block.as_ref().notes.fetch_and(!RESCAN, Ordering::Relaxed);
                    Block::objects(block, &mut |object| {
                        if self.is_marked(object) {
                            self.trace(entry(object, 0));
                            self.empty();
                        }
                    });
                }
            });
        }
    }

    /// For the collector, when all is marked that is strongly reachable: marks what ephemerons keep.
    pub(super) fn finish_ephemerons(&mut self, relax: &mut dyn FnMut(u32)) {
        loop {
            self.begin();
            let mut any = false;
            let mut i = 0;
            while let Some((table, weakness)) = self.shared.weak_table(i) {
                if weakness == Weakness::Keys {
                    any |= self.mark_ephemerons(table);
                }
                i += 1;
            }
            self.finish(relax);
            if !any {
                return;
            }
        }
    }

    /// For the collector, when all is marked that is reachable: removes dead values from weak tables, before finalizers bring any back.
    pub(super) fn clear_weak_values(&mut self) {
        let mut i = 0;
        while let Some((table, weakness)) = self.shared.weak_table(i) {
            if weakness != Weakness::Keys {
                self.clear_values(table);
            }
            i += 1;
        }
    }

    /// For the collector, when all marks are set: removes the entries of dead objects from weak tables.
    pub(super) fn finish_weak(&mut self) {
        let mut i = 0;
        while let Some((table, weakness)) = self.shared.weak_table(i) {
            self.clear_weak(table, weakness);
            i += 1;
        }
        self.shared.weak.lock().clear();
    }

    /// Marks an object, and looks into it if it was not marked; or looks into a slice of it.
    #[inline(always)]
    fn visit(&mut self, next: u64) {
        let (object, slice) = parts(next);
        if let Some(object) = NonNull::new(object) {
            // SAFETY: entries are live objects.
            if slice != 0 || unsafe { self.keep(object) } {
                self.trace(next);
            }
        }
    }

    /// Looks into an object that is marked, or a slice of it.
    #[inline(always)]
    fn trace(&mut self, next: u64) {
        let (object, slice) = parts(next);
        let Some(object) = NonNull::new(object) else {
            return;
        };
        self.traced += 1;
        // SAFETY: entries are live objects; each cast follows the kind. The world is stopped, so nothing changes meanwhile.
        unsafe {
            match object.as_ref().kind() {
                Kind::Table => self.table(Gc::from_ptr(object.cast())),
                Kind::DenseBlock => {
                    let dense: Gc<DenseBlock> = Gc::from_ptr(object.cast());
                    if slice == 0
                        && let Some(root) = dense.radix()
                    {
                        self.object(root.header_ptr());
                    }
                    let words = dense.as_ptr().add(1).cast::<u64>();
                    self.slice(object, slice, words, dense.capacity());
                }
                Kind::NodeBlock => {
                    let nodes: Gc<NodeBlock> = Gc::from_ptr(object.cast());
                    self.nodes(object, slice, nodes);
                }
                Kind::RadixNode => {
                    let node: Gc<RadixNode> = Gc::from_ptr(object.cast());
                    if node.is_leaf() {
                        self.values(node.words(), node.width());
                    } else {
                        for i in 0..node.width() {
                            if let Some(child) = node.child_at(i) {
                                self.object(child.header_ptr());
                            }
                        }
                    }
                }
                Kind::Closure => {
                    let closure: Gc<crate::object::Closure> = Gc::from_ptr(object.cast());
                    let proto = (*closure.as_ptr()).proto;
                    self.object(proto.cast());
                    let captures = closure.captures();
                    if proto.as_ref().has_raw_captures() {
                        for i in 0..captures {
                            self.value(closure.traced_capture(i));
                        }
                    } else {
                        self.values(closure.as_ptr().add(1).cast(), captures);
                    }
                }
                Kind::Native => {
                    let native: Gc<NativeFunction> = Gc::from_ptr(object.cast());
                    self.values(native.as_ptr().add(1).cast(), native.captures());
                }
                Kind::Cell => {
                    let cell: Gc<crate::object::Cell> = Gc::from_ptr(object.cast());
                    self.value(cell.get());
                }
                Kind::Proto => {
                    let proto = object.cast::<Proto>().as_ref();
                    for constant in proto.constants() {
                        self.value(*constant);
                    }
                    for child in proto.children() {
                        self.object(child.cast());
                    }
                }
                Kind::Free | Kind::BoxedInteger | Kind::String | Kind::RawCell | Kind::Stack => {}
                kind => {
                    if let Some(hook) = self.heap.mark_hook(kind) {
                        hook(object, self);
                    } else {
                        let heap = self.heap;
                        let mut from = 0;
                        let mut visit = |value| {
                            self.value(value);
                            Visit::On
                        };
                        while let Some(next) = crate::object::trace(heap, object, from, &mut visit)
                        {
                            from = next;
                        }
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn table(&mut self, table: Gc<Table>) {
        // SAFETY: a live table; its blocks are objects of the heap unless they are the static ones.
        unsafe {
            if table.header().flags() & flags::METATABLE != 0
                && let Some(metatable) = table.metatable()
            {
                self.object(metatable.header_ptr());
                if let Some(weakness) = self.weakness(metatable)
                    && self.shared.note_weak(table, weakness)
                {
                    self.mark_weak(table, weakness);
                    return;
                }
            }
            let dense = table.dense_block();
            if !dense.is_static() {
                self.object(dense.header_ptr());
            }
            let nodes = table.node_block();
            if !nodes.is_static() {
                self.object(nodes.header_ptr());
            }
        }
    }

    /// What is weak of tables with this metatable.
    #[inline(always)]
    fn weakness(&mut self, metatable: Gc<Table>) -> Option<Weakness> {
        // Many tables have the same metatable, and come one after another.
        if self.last_metatable.0 != Some(metatable) {
            let weakness = weak::weakness(metatable, self.heap.mode_name());
            self.last_metatable = (Some(metatable), weakness);
        }
        self.last_metatable.1
    }

    /// Slice `slice` of `count` values at `words`; the rest goes on the stack.
    #[inline(always)]
    unsafe fn slice(
        &mut self,
        object: NonNull<Header>,
        slice: usize,
        words: *const u64,
        count: usize,
    ) {
        let from = slice * SLICE;
        let end = count.min(from + SLICE);
        if end < count {
            self.push(entry(object, slice + 1));
        }
        // SAFETY: the words are there, says the caller.
        unsafe { self.values(words.add(from), end.saturating_sub(from)) };
    }

    unsafe fn nodes(&mut self, object: NonNull<Header>, slice: usize, nodes: Gc<NodeBlock>) {
        let count = nodes.count();
        let from = slice * (SLICE / 2);
        let end = count.min(from + SLICE / 2);
        if end < count {
            self.push(entry(object, slice + 1));
        }
        for i in from..end {
            let (key, value) = nodes.entry(i as u32);
            self.value(key);
            self.value(value);
        }
    }
}

impl Drop for Marker<'_> {
    fn drop(&mut self) {
        // SAFETY: what is in hand is this marker's own; a marker that ends has no entries left.
        unsafe {
            for list in [self.current, self.rest] {
                let mut list = list;
                while let Some(segment) = NonNull::new(list) {
                    list = (*segment.as_ptr()).next;
                    debug_assert_eq!((*segment.as_ptr()).count, 0);
                    self.shared.put_spare(segment);
                }
            }
        }
    }
}

/// Fetches the object's mark.
#[inline(always)]
fn prefetch_mark(object: *mut Header) {
    let block = object.map_addr(|address| address & !(BLOCK_BYTES - 1));
    let place = Block::mark_place(object.addr() & (BLOCK_BYTES - 1));
    prefetch(block.cast::<u8>().wrapping_add(place).cast());
}

#[inline(always)]
fn prefetch(object: *mut Header) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(object.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = object;
}

#[cfg(test)]
pub(super) mod testing {
    extern crate std;

    use core::cell::Cell;

    std::thread_local! {
        /// There is no memory for segments.
        pub(super) static NO_SEGMENTS: Cell<bool> = const { Cell::new(false) };
    }

    /// Does something while the allocator has nothing for segments.
    pub(in crate::heap::collect) fn without_segments(work: impl FnOnce()) {
        NO_SEGMENTS.set(true);
        work();
        NO_SEGMENTS.set(false);
    }
}
