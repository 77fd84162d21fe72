//! The radix of a shared table: integer keys beyond the dense block, in leaves made on first touch.
//!
//! Key `k` has index `x = k - 1 - capacity`, from 0 to 2^29 - 1. The tree's nodes have one of six forms:
//!
//! | form | holds | covers |
//! | --- | --- | --- |
//! | small leaf | 32 values | 32 indices |
//! | large leaf | 1024 values | 1024: a *region* |
//! | low | 32 small leaves | a region |
//! | middle, high, top | 64, 64, 128 nodes of the form below | 2^16, 2^22, 2^29 |
//!
//! Which region gets a large leaf, and which a low node with small ones, is decided when its first key is stored: a large one if the
//! region before or behind is half full, or, for the first one, the end of the dense block. So keys that come in runs lie in large leaves, and scattered ones cost a small
//! leaf each; of the slots of large leaves a constant share is used.
//!
//! A missing child is made by one compare-and-exchange, and so is a taller root, whose child 0 is the former one. Nothing in the tree is
//! ever replaced, so whoever has found a slot may use it as long as the table lives. A pointer to a node has the node's form in its low
//! bits, so that a search reads pointers only: a large leaf's header is no cache line of the slots that it goes to.
//!
//! A tree with a region that is half full has a *directory* before its root: for each of the first regions a pointer to its node, or null, so that a slot is three loads
//! from the dense block. It is a cache of the tree: whoever searched in the tree notes what it found. Only a root that is the top is put behind a directory, for it
//! is never replaced; a directory that is too short is replaced by an empty longer one, by one compare-and-exchange, and left to the collector.

use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::heap::block::{GRANULE, MAX_SMALL};
use crate::heap::{Header, Kind, LocalHeap, NeedMemory};
use crate::object::Gc;
use crate::value::Value;

/// The form of a node: the low bits of its header's word, and of each pointer to it.
type Form = u32;
const SMALL: Form = 0;
const LOW: Form = 1;
const MIDDLE: Form = 2;
const HIGH: Form = 3;
const TOP: Form = 4;
const LARGE: Form = 5;
const DIRECTORY: Form = 6;

/// How many bits of the word are the form; above, a directory has its length there.
const FORM_BITS: u32 = GRANULE.ilog2();

/// By form: how many words a node has, slots or children. Of a directory it is the one that it owns, the root.
const WIDTHS: [usize; 7] = [32, 32, 64, 64, 128, 1024, 1];
/// By form: the binary logarithm of how many indices a node covers.
const COVERS: [u32; 7] = [5, 10, 16, 22, 29, 10, 29];

/// The binary logarithm of a region: the indices that lie in one large leaf or below one low node.
const REGION_BITS: u32 = COVERS[LARGE as usize];
const REGION: u64 = 1 << REGION_BITS;
/// The longest directory: as long as an object that is zeroed when it is made may be. It covers four million indices.
const LONGEST: u64 = ((MAX_SMALL - size_of::<RadixNode>()) / 8 - 1) as u64;
/// Number of keys that the radix can hold.
pub(super) const SPAN: u64 = 1 << COVERS[TOP as usize];

/// A node, or a directory. The low bits of the header's word are its form. The words of a leaf are values; those of other nodes are pointers to nodes, or null.
#[repr(C)]
pub struct RadixNode {
    header: Header,
}

/// Where a pointer to a node is kept: null if there is none.
pub(super) struct Edge(AtomicPtr<RadixNode>);

/// A node, and which form it has.
#[derive(Clone, Copy)]
struct Node(NonNull<RadixNode>);

/// What is at one place of a node.
pub(super) enum Part {
    Value(Value),
    Child(Option<Gc<RadixNode>>),
}

impl Edge {
    pub(super) const fn new() -> Edge {
        Edge(AtomicPtr::new(null_mut()))
    }

    /// Whether it leads nowhere: of a table that was never shared it does not.
    #[inline(always)]
    pub(super) fn is_null(&self) -> bool {
        self.load().is_none()
    }

    /// Acquire, so that the node is found initialised.
    #[inline(always)]
    fn load(&self) -> Option<Node> {
        NonNull::new(self.0.load(Ordering::Acquire)).map(Node)
    }

    /// The node, if there is one.
    #[inline(always)]
    pub(super) fn node(&self) -> Option<Gc<RadixNode>> {
        self.load().map(Node::object)
    }
}

impl Node {
    /// A pointer to a node with this form.
    fn new(node: Gc<RadixNode>, form: Form) -> Node {
        // SAFETY: adding less than an object's alignment to its address gives no null.
        Node(unsafe {
            NonNull::new_unchecked(node.as_ptr().map_addr(|address| address | form as usize))
        })
    }

    #[inline(always)]
    fn form(self) -> Form {
        (self.0.as_ptr().addr() & (GRANULE - 1)) as Form
    }

    #[inline(always)]
    fn object(self) -> Gc<RadixNode> {
        // SAFETY: what is linked lives as long as the table.
        unsafe {
            Gc::from_ptr(NonNull::new_unchecked(
                self.0.as_ptr().map_addr(|address| address & !(GRANULE - 1)),
            ))
        }
    }

    /// Slot `index` of a leaf.
    ///
    /// # Safety
    /// The node is a leaf that has so many.
    #[inline(always)]
    unsafe fn slot<'a>(self, index: u64) -> &'a AtomicU64 {
        // SAFETY: the words lie behind the header; there are enough, says the caller.
        unsafe {
            &*self
                .object()
                .as_ptr()
                .add(1)
                .cast::<AtomicU64>()
                .add(index as usize)
        }
    }

    /// Child `index` of a node that is no leaf.
    ///
    /// # Safety
    /// The node is no leaf, and has so many.
    #[inline(always)]
    unsafe fn child<'a>(self, index: u64) -> &'a Edge {
        // SAFETY: as for `slot`.
        unsafe {
            &*self
                .object()
                .as_ptr()
                .add(1)
                .cast::<Edge>()
                .add(index as usize)
        }
    }
}

impl Gc<RadixNode> {
    #[inline(always)]
    fn form(self) -> Form {
        self.header().word.load(Ordering::Relaxed) & ((1 << FORM_BITS) - 1)
    }

    /// How many regions a directory has a place for.
    #[inline(always)]
    fn length(self) -> u64 {
        u64::from(self.header().word.load(Ordering::Relaxed) >> FORM_BITS)
    }

    #[inline(always)]
    fn node(self) -> Node {
        Node::new(self, self.form())
    }

    /// Whether its words are values.
    #[inline(always)]
    pub(crate) fn is_leaf(self) -> bool {
        matches!(self.form(), SMALL | LARGE)
    }

    /// Number of slots of a leaf, or of children of another node.
    #[inline(always)]
    pub(crate) fn width(self) -> usize {
        WIDTHS[self.form() as usize]
    }

    /// The words of a leaf, as many as it is wide.
    pub(crate) fn words(self) -> *mut u64 {
        debug_assert!(self.is_leaf());
        // SAFETY: they lie behind the header.
        unsafe { self.as_ptr().add(1).cast() }
    }

    /// Child `index`, below the width, of a node that is no leaf.
    pub(crate) fn child_at(self, index: usize) -> Option<Gc<RadixNode>> {
        match self.part(index) {
            Part::Value(_) => None,
            Part::Child(child) => child,
        }
    }

    /// Slot or child `index`, below the width.
    pub(super) fn part(self, index: usize) -> Part {
        debug_assert!(index < self.width());
        let index = index as u64;
        // SAFETY: of that form, and wide enough; slots hold nothing but values.
        unsafe {
            if self.is_leaf() {
                Part::Value(Value::from_bits(
                    self.node().slot(index).load(Ordering::Acquire),
                ))
            } else {
                Part::Child(self.node().child(index).node())
            }
        }
    }

    /// Removes the values of a leaf of which `is_dead` is true.
    pub(super) fn clear_values(self, is_dead: &mut dyn FnMut(Value) -> bool) {
        if !self.is_leaf() {
            return;
        }
        for i in 0..self.width() {
            // SAFETY: a leaf of that width; slots hold nothing but values.
            unsafe {
                let slot = self.node().slot(i as u64);
                if is_dead(Value::from_bits(slot.load(Ordering::Relaxed))) {
                    slot.store(Value::NIL.to_bits(), Ordering::Relaxed);
                }
            }
        }
    }

    /// The size of a node with this word.
    fn bytes(word: u32) -> usize {
        let form = word & ((1 << FORM_BITS) - 1);
        size_of::<RadixNode>() + (WIDTHS[form as usize] + (word >> FORM_BITS) as usize) * 8
    }

    fn new(local: &LocalHeap, word: u32) -> Result<Gc<RadixNode>, NeedMemory> {
        let object = local.alloc_object(Kind::RadixNode, word, Self::bytes(word))?;
        // SAFETY: the object is new and that long; zeroed words are null pointers, and a leaf's are made nil here.
        let node: Gc<RadixNode> = unsafe { Gc::from_ptr(object.cast()) };
        if node.is_leaf() {
            for i in 0..node.width() {
                // SAFETY: a leaf of that width.
                unsafe { node.node().slot(i as u64) }
                    .store(Value::NIL.to_bits(), Ordering::Relaxed);
            }
        }
        Ok(node)
    }
}

/// Calls `visit` with a node and all below it: as deep as there are levels.
pub(super) fn each_node(node: Gc<RadixNode>, visit: &mut dyn FnMut(Gc<RadixNode>)) {
    visit(node);
    if !node.is_leaf() {
        for i in 0..node.width() {
            if let Part::Child(Some(child)) = node.part(i) {
                each_node(child, visit);
            }
        }
    }
}

impl Node {
    /// The place for a region in a directory that is longer than its number.
    ///
    /// # Safety
    /// The node is such a directory.
    #[inline(always)]
    unsafe fn entry<'a>(self, region: u64) -> &'a Edge {
        // SAFETY: the first word is the root; the rest is as the caller says.
        unsafe { self.child(1 + region) }
    }
}

/// The slot of index `x`, which may be any number, if it is in a large leaf that the directory knows.
#[inline(always)]
pub(super) fn find_at_once<'a>(edge: &Edge, x: u64) -> Option<&'a AtomicU64> {
    let directory = edge.load()?;
    if directory.form() != DIRECTORY || x >> REGION_BITS >= directory.object().length() {
        return None;
    }
    // SAFETY: the directory is long enough; a large leaf has as many slots as a region.
    unsafe {
        let leaf = directory.entry(x >> REGION_BITS).load()?;
        (leaf.form() == LARGE).then(|| leaf.slot(x & (REGION - 1)))
    }
}

/// The slot of index `x`, which may be any number, if its leaf exists.
#[inline(always)]
pub(super) fn find<'a>(edge: &Edge, x: u64) -> Option<&'a AtomicU64> {
    find_at_once(edge, x).or_else(|| search(edge, x))
}

/// As [`find`], for what is perhaps not in the directory; notes there what it finds.
#[inline(never)]
fn search<'a>(edge: &Edge, x: u64) -> Option<&'a AtomicU64> {
    if x >= SPAN {
        return None;
    }
    let Some(node) = region(edge, x) else {
        // Of a region there may be one small leaf: the root.
        let leaf = edge.load()?;
        let is_there = leaf.form() == SMALL && x >> COVERS[SMALL as usize] == 0;
        // SAFETY: a leaf, of that width.
        return is_there.then(|| unsafe { leaf.slot(x) });
    };
    // SAFETY: by its form the node is a leaf that has a slot for each index of the region, or has a child for each 32 of them.
    unsafe {
        if node.form() == LARGE {
            return Some(node.slot(x & (REGION - 1)));
        }
        let leaf = node.child(x >> 5 & 31).load()?;
        Some(leaf.slot(x & 31))
    }
}

/// The slot of index `x` (below [`SPAN`]); what is missing on the way is made. `follows_values`: the dense block ends in a region that is half full.
pub(super) fn find_or_make<'a>(
    local: &LocalHeap,
    edge: &Edge,
    x: u64,
    follows_values: impl Fn() -> bool,
) -> Result<&'a AtomicU64, NeedMemory> {
    debug_assert!(x < SPAN);
    loop {
        if let Some(slot) = find(edge, x) {
            return Ok(slot);
        }
        make(local, edge, x, &follows_values)?;
    }
}

/// The root of the tree.
#[inline(always)]
fn root(edge: &Edge) -> Option<Node> {
    let node = edge.load()?;
    if node.form() == DIRECTORY {
        // SAFETY: a directory's first word is the root.
        return unsafe { node.child(0).load() };
    }
    Some(node)
}

/// Makes one node that is missing on the way to index `x`, unless another core has just done so.
#[cold]
fn make(
    local: &LocalHeap,
    edge: &Edge,
    x: u64,
    follows_values: &impl Fn() -> bool,
) -> Result<(), NeedMemory> {
    let Some(mut node) = root(edge) else {
        let mut form = SMALL;
        while x >> COVERS[form as usize] != 0 {
            form += 1;
        }
        if x < REGION && follows_values() {
            form = LARGE;
        }
        return link(local, edge, None, form, None);
    };
    if x >> COVERS[node.form() as usize] != 0 {
        return raise(local, edge, node);
    }
    loop {
        let (index, form) = match node.form() {
            TOP => (x >> COVERS[HIGH as usize], HIGH),
            HIGH => (x >> COVERS[MIDDLE as usize] & 63, MIDDLE),
            MIDDLE => (x >> REGION_BITS & 63, LOW),
            LOW => (x >> COVERS[SMALL as usize] & 31, SMALL),
            _ => return Ok(()),
        };
        // SAFETY: no leaf, and as many children as the masks allow; the root covers `x`.
        let place = unsafe { node.child(index) };
        if let Some(child) = place.load() {
            node = child;
            continue;
        }
        let mut form = form;
        if form == LOW && is_in_a_run(edge, x, follows_values) {
            form = LARGE;
        }
        if form == LARGE || (form == SMALL && node.is_half_full()) {
            provide_directory(local, edge, x >> REGION_BITS)?;
        }
        return link(local, place, None, form, None);
    }
}

/// Puts a root one level higher before the root, `node`, which is no top.
fn raise(local: &LocalHeap, edge: &Edge, node: Node) -> Result<(), NeedMemory> {
    let form = match node.form() {
        SMALL => LOW,
        LOW | LARGE => MIDDLE,
        form => form + 1,
    };
    link(local, edge, Some(node), form, Some(node))
}

/// Sees to it that there is a directory with a place for a region, if it may be so long.
fn provide_directory(local: &LocalHeap, edge: &Edge, region: u64) -> Result<(), NeedMemory> {
    while let Some(node) = edge.load()
        && region < LONGEST
    {
        match node.form() {
            DIRECTORY if region < node.object().length() => return Ok(()),
            TOP | DIRECTORY => {
                let length = (region + 1).next_power_of_two().clamp(16, LONGEST);
                let word = (length as u32) << FORM_BITS | DIRECTORY;
                link(local, edge, Some(node), word, root(edge))?;
            }
            _ => raise(local, edge, node)?,
        }
    }
    Ok(())
}

impl Node {
    /// Whether half of the slots of a leaf hold values, or there are half of the children.
    fn is_half_full(self) -> bool {
        let node = self.object();
        let used = (0..node.width())
            .filter(|&i| match node.part(i) {
                Part::Value(value) => !value.is_nil(),
                Part::Child(child) => child.is_some(),
            })
            .count();
        used >= node.width() / 2
    }
}

/// Whether the region before that of `x`, or the one behind, is half full.
fn is_in_a_run(edge: &Edge, x: u64, follows_values: &impl Fn() -> bool) -> bool {
    let filled = |x: u64| x < SPAN && region(edge, x).is_some_and(Node::is_half_full);
    if x < REGION {
        follows_values() || filled(x + REGION)
    } else {
        filled(x - REGION) || filled(x + REGION)
    }
}

/// The low node or large leaf of the region of `x` (below [`SPAN`]). If the directory does not know it, it does now.
fn region(edge: &Edge, x: u64) -> Option<Node> {
    let number = x >> REGION_BITS;
    let entry = edge.load().and_then(|node| {
        // SAFETY: the directory is long enough.
        (node.form() == DIRECTORY && number < node.object().length())
            .then(|| unsafe { node.entry(number) })
    });
    if let Some(known) = entry.and_then(Edge::load) {
        return Some(known);
    }
    let mut node = root(edge)?;
    if x >> COVERS[node.form() as usize] != 0 {
        return None;
    }
    // SAFETY: each child is of a node of the form that was tested, and there are as many as the test and the masks allow.
    unsafe {
        if node.form() == TOP {
            node = node.child(x >> COVERS[HIGH as usize]).load()?;
        }
        if node.form() == HIGH {
            node = node.child(x >> COVERS[MIDDLE as usize] & 63).load()?;
        }
        if node.form() == MIDDLE {
            node = node.child(number & 63).load()?;
        }
    }
    if node.form() == SMALL {
        return None;
    }
    if let Some(entry) = entry {
        // Release: whoever finds the node here finds it initialised. Two that note it note the same.
        entry.0.store(node.0.as_ptr(), Ordering::Release);
    }
    Some(node)
}

/// Links a new node with this word, whose first child is `first`, if the place is still as it was; else frees it. The caller looks again.
fn link(
    local: &LocalHeap,
    place: &Edge,
    expected: Option<Node>,
    word: u32,
    first: Option<Node>,
) -> Result<(), NeedMemory> {
    let new = Gc::<RadixNode>::new(local, word)?;
    if let Some(first) = first {
        // SAFETY: a node above another is no leaf.
        let edge = unsafe { new.node().child(0) };
        edge.0.store(first.0.as_ptr(), Ordering::Relaxed);
    }
    let expected = expected.map_or(null_mut(), |node| node.0.as_ptr());
    // Release, so that whoever follows the pointer finds the node initialised.
    let exchanged = place.0.compare_exchange(
        expected,
        new.node().0.as_ptr(),
        Ordering::Release,
        Ordering::Relaxed,
    );
    if exchanged.is_err() {
        // SAFETY: it was not linked, so nobody else has ever known it.
        unsafe { local.free(new.header_ptr(), Gc::<RadixNode>::bytes(word)) };
    }
    Ok(())
}

/// The first index from `x` on whose leaf exists, and its value, nil or not. `None` if there is none.
///
/// The number of steps is bounded by the fan-out and the levels.
pub(super) fn next(edge: &Edge, x: u64) -> Option<(u64, Value)> {
    // SAFETY: slots hold nothing but values.
    let value = |slot: &AtomicU64| unsafe { Value::from_bits(slot.load(Ordering::Acquire)) };
    let mut x = x;
    'from_root: loop {
        if let Some(slot) = find_at_once(edge, x) {
            return Some((x, value(slot)));
        }
        let mut node = root(edge)?;
        if x >> COVERS[node.form() as usize] != 0 {
            return None;
        }
        while !matches!(node.form(), SMALL | LARGE) {
            // The form below, and with it the indices that a child covers.
            let below = COVERS[node.form() as usize - 1];
            let index = x >> below & (WIDTHS[node.form() as usize] as u64 - 1);
            // SAFETY: no leaf, and as many children as the mask allows.
            match unsafe { node.child(index).load() } {
                Some(child) => node = child,
                None => {
                    // The first index that the next child covers.
                    x = ((x >> below) + 1) << below;
                    continue 'from_root;
                }
            }
        }
        let index = x & (WIDTHS[node.form() as usize] as u64 - 1);
        // SAFETY: a leaf, of that width.
        return Some((x, value(unsafe { node.slot(index) })));
    }
}
