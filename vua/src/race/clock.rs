//! Vector clocks that share what they have in common.
//!
//! A program has a strand for each task and for each iteration of a parallel loop, a million of them at times, and whoever locks what all of them locked before knows of them all. So a
//! clock is a tree of sixteen children a node, by the strands' numbers, whose nodes clocks share: to copy one is to copy a reference, to set an entry copies one path, and to join
//! two goes only where they differ.

use alloc::rc::Rc;

/// What tells strands apart.
pub(super) type Strand = u32;
/// A moment: one count for the whole program, from which each strand takes a new number whenever what it did before is made known to another.
pub(super) type Time = u64;

const BITS: u32 = 4;
const FANOUT: usize = 1 << BITS;

enum Node {
    Leaf([Time; FANOUT]),
    Inner([Option<Rc<Node>>; FANOUT]),
}

/// Of each strand, up to which of its moments everything is known; 0 is nothing.
#[derive(Clone, Default)]
pub(super) struct Tree {
    root: Option<Rc<Node>>,
    /// Inner levels above the leaves.
    height: u32,
}

fn index(strand: Strand, level: u32) -> usize {
    (strand >> (BITS * level)) as usize & (FANOUT - 1)
}

fn is_same(x: &Option<Rc<Node>>, y: &Option<Rc<Node>>) -> bool {
    match (x, y) {
        (None, None) => true,
        (Some(x), Some(y)) => Rc::ptr_eq(x, y),
        _ => false,
    }
}

impl Tree {
    /// The strand's entry.
    pub(super) fn get(&self, strand: Strand) -> Time {
        if !self.covers(strand) {
            return 0;
        }
        let (mut node, mut level) = (self.root.as_deref(), self.height);
        loop {
            match node {
                None => return 0,
                Some(Node::Leaf(times)) => return times[index(strand, 0)],
                Some(Node::Inner(children)) => {
                    node = children[index(strand, level)].as_deref();
                    level -= 1;
                }
            }
        }
    }

    /// Whether the strand's number is within the tree.
    fn covers(&self, strand: Strand) -> bool {
        let bits = BITS * (self.height + 1);
        bits >= Strand::BITS || strand >> bits == 0
    }

    fn grow(&mut self) {
        if let Some(root) = self.root.take() {
            let mut children = [const { None }; FANOUT];
            children[0] = Some(root);
            self.root = Some(Rc::new(Node::Inner(children)));
        }
        self.height += 1;
    }

    /// The strand is known up to `time` at least.
    pub(super) fn raise(&mut self, strand: Strand, time: Time) {
        if self.get(strand) >= time {
            return;
        }
        while !self.covers(strand) {
            self.grow();
        }
        raise(&mut self.root, strand, time, self.height);
    }

    /// What either knew.
    pub(super) fn join(&mut self, other: &Tree) {
        let mut other = other.clone();
        if other.root.is_none() {
            return;
        }
        while self.height < other.height {
            self.grow();
        }
        while other.height < self.height {
            other.grow();
        }
        self.root = joined(&self.root, &other.root);
    }

    /// Whether both are one tree.
    pub(super) fn is_same(&self, other: &Tree) -> bool {
        self.height == other.height && is_same(&self.root, &other.root)
    }
}

fn raise(node: &mut Option<Rc<Node>>, strand: Strand, time: Time, level: u32) {
    let mut copy = match node.as_deref() {
        Some(Node::Leaf(times)) => Node::Leaf(*times),
        Some(Node::Inner(children)) => Node::Inner(children.clone()),
        None if level == 0 => Node::Leaf([0; FANOUT]),
        None => Node::Inner([const { None }; FANOUT]),
    };
    match &mut copy {
        Node::Leaf(times) => times[index(strand, 0)] = time,
        Node::Inner(children) => raise(
            &mut children[index(strand, level)],
            strand,
            time,
            level.saturating_sub(1),
        ),
    }
    *node = Some(Rc::new(copy));
}

/// The join of two nodes of one level: one of the two wherever that is enough, so that later joins find them the same.
fn joined(x: &Option<Rc<Node>>, y: &Option<Rc<Node>>) -> Option<Rc<Node>> {
    if is_same(x, y) {
        return x.clone();
    }
    match (x.as_deref(), y.as_deref()) {
        (None, _) => y.clone(),
        (_, None) => x.clone(),
        (Some(Node::Leaf(a)), Some(Node::Leaf(b))) => {
            let mut times = *a;
            for (time, other) in times.iter_mut().zip(b) {
                *time = (*time).max(*other);
            }
            if times == *a {
                x.clone()
            } else if times == *b {
                y.clone()
            } else {
                Some(Rc::new(Node::Leaf(times)))
            }
        }
        (Some(Node::Inner(a)), Some(Node::Inner(b))) => {
            let mut children = [const { None }; FANOUT];
            let (mut as_x, mut as_y) = (true, true);
            for ((child, a), b) in children.iter_mut().zip(a).zip(b) {
                *child = joined(a, b);
                as_x &= is_same(child, a);
                as_y &= is_same(child, b);
            }
            if as_x {
                x.clone()
            } else if as_y {
                y.clone()
            } else {
                Some(Rc::new(Node::Inner(children)))
            }
        }
        // Both are of one level.
        _ => x.clone(),
    }
}

/// What somebody knows of what happened before.
#[derive(Clone, Default)]
pub(super) struct Known {
    /// All that happened up to this moment, whoever did it.
    pub(super) horizon: Time,
    pub(super) tree: Tree,
}

impl Known {
    pub(super) fn join(&mut self, other: &Known) {
        self.horizon = self.horizon.max(other.horizon);
        self.tree.join(&other.tree);
    }

    pub(super) fn is_same(&self, other: &Known) -> bool {
        self.horizon == other.horizon && self.tree.is_same(&other.tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::vec::Vec;

    #[test]
    fn trees_are_the_maps_that_they_stand_for() {
        // A linear congruential generator (Knuth, MMIX): many small numbers, some large.
        let mut random = 7u64;
        let mut next = |limit: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % limit
        };
        let mut all: Vec<(Tree, BTreeMap<Strand, Time>)> = Vec::new();
        all.push(Default::default());
        for _ in 0..3000 {
            let (mut tree, mut map) = all[next(all.len() as u64) as usize].clone();
            if next(4) == 0 {
                let (other, its) = &all[next(all.len() as u64) as usize];
                tree.join(other);
                for (strand, time) in its {
                    let entry = map.entry(*strand).or_default();
                    *entry = (*entry).max(*time);
                }
            } else {
                let limit = [3, 20, 300, 70_000, 1 << 31][next(5) as usize];
                let (strand, time) = (next(limit) as Strand, 1 + next(9));
                tree.raise(strand, time);
                let entry = map.entry(strand).or_default();
                *entry = (*entry).max(time);
            }
            for (strand, time) in &map {
                assert_eq!(tree.get(*strand), *time);
            }
            let absent = next(1 << 31) as Strand;
            assert_eq!(
                tree.get(absent),
                map.get(&absent).copied().unwrap_or_default()
            );
            all.push((tree, map));
            if all.len() > 40 {
                all.swap_remove(next(40) as usize);
            }
        }
    }

    #[test]
    fn what_adds_nothing_makes_nothing() {
        let mut tree = Tree::default();
        for strand in [1, 70, 5000] {
            tree.raise(strand, 3);
        }
        let mut copy = tree.clone();
        copy.raise(70, 2);
        copy.join(&Tree::default());
        copy.join(&tree);
        assert!(copy.is_same(&tree));
        let mut more = tree.clone();
        more.raise(71, 1);
        assert!(!more.is_same(&tree));
        copy.join(&more);
        assert!(copy.is_same(&more));
    }
}
