//! Verification, for tests: after a young collection has marked, all that can be reached is looked for again from the roots, old or not, and everything found is to be marked.
//! What is not is something that would be freed while it is in use: a store that was not noted. Says of what kind it is, and what refers to it.
//!
//! What has been come to bears another bit beside its mark, so this needs no memory, and goes the ways that marking goes. Two things are different. The stacks of coroutines are
//! looked at exactly: of an old one that was not resumed since, a word that nobody reads any more may by now look like a reference to an object made later, which it does not
//! keep alive. And of weak tables everything that is left in them is to be marked.

use alloc::format;
use alloc::string::String;
use core::fmt::Write;
use core::ptr::NonNull;

use super::super::block::{Block, Colour};
use super::super::pool::Pool;
use super::super::{Header, Heap, Visit};
use super::mark::Marker;
use super::{Mutators, relax};
use crate::value::Value;

/// How many errors are told.
const MOST: u32 = 8;

/// What a verification knows.
#[derive(Default)]
pub(super) struct Verification {
    /// The object that is looked into; none while roots are.
    pub(super) at: Option<NonNull<Header>>,
    /// No words of stacks are looked at.
    exact: bool,
    errors: u32,
    text: String,
}

impl Marker<'_> {
    /// Whether words that may be no references are left out.
    #[inline(always)]
    pub(super) fn is_exact(&self) -> bool {
        self.verification.as_ref().is_some_and(|v| v.exact)
    }

    /// An object that can be reached, to be marked.
    #[cold]
    pub(super) fn verify(&mut self, object: NonNull<Header>) {
        let colour = self.colour();
        let Some(verification) = &mut self.verification else {
            return;
        };
        // SAFETY: objects of the heap, which has not been swept since they were alive.
        unsafe {
            let marks = &Block::of(object).as_ref().marks;
            if marks.bears(Block::offset(object), colour) {
                return;
            }
            verification.errors += 1;
            if verification.errors <= MOST {
                let kind = object.as_ref().kind();
                let from = match verification.at {
                    Some(at) => format!(
                        "an object of kind {:?} at {at:p}, header byte {:#x}",
                        at.as_ref().kind(),
                        at.as_ref().flags()
                    ),
                    None => String::from("a root"),
                };
                let _ = write!(
                    verification.text,
                    "\n{from} refers to an object of kind {kind:?} at {object:p}, which is not marked"
                );
            }
        }
    }

    /// Looks into a coroutine: exactly if its stack is its own, else at all but the stack.
    pub(super) fn verify_coroutine(&mut self, object: NonNull<Header>) {
        let heap = self.heap();
        self.set_exact(true);
        // SAFETY: a live coroutine in the pause.
        unsafe {
            if let Some(hook) = heap.mark_hook(object.as_ref().kind()) {
                hook(object, self);
            }
            if crate::task::coroutine::is_at_rest(object) {
                let mut from = 0;
                let mut visit = |value: Value| {
                    self.value(value);
                    Visit::On
                };
                while let Some(next) = crate::object::trace(heap, object, from, &mut visit) {
                    from = next;
                }
            }
        }
        self.set_exact(false);
    }

    fn set_exact(&mut self, exact: bool) {
        if let Some(verification) = &mut self.verification {
            verification.exact = exact;
        }
    }
}

impl Heap {
    /// Sees to it that a young collection, of this mark, has marked all that can be reached.
    ///
    /// # Panics
    /// If it has not.
    ///
    /// # Safety
    /// In the pause, by the collector, all marks set and nothing freed.
    pub(super) unsafe fn verify(&self, mutators: &dyn Mutators, pool: &Pool, colour: Colour) {
        let mut verification = Verification::default();
        // SAFETY: in the pause.
        unsafe {
            let mut marker =
                Marker::new(self, pool, &self.collector.shared, colour.verified(), false);
            marker.verification = Some(&mut verification);
            marker.begin();
            for place in 0..self.root_places(mutators, pool) {
                if let Some(verification) = &mut marker.verification {
                    verification.at = None;
                }
                self.mark_root(mutators, pool, &mut marker, place);
            }
            let relax = &mut |rounds| relax(self.platform, rounds);
            marker.finish(relax);
            marker.finish_ephemerons(relax);
            marker.verify_weak();
            drop(marker);
            pool.each(&mut |block| block.as_ref().marks.forget_verified());
        }
        assert!(
            verification.errors == 0,
            "{} references to objects that a young collection would free:{}",
            verification.errors,
            verification.text
        );
    }
}
