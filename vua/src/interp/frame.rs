//! Frames on a task's value stack, and the words that link them.
//!
//! A frame begins at its *base*, register 0. `base[-2]` is the function as a value, `base[-1]` the *link*, which says where
//! to go on when the function returns. Two low bits tell four kinds apart:
//!
//! | bits 0..2 | who called | rest of the word |
//! | --- | --- | --- |
//! | 0 | an instruction of a Vua function | the address of the instruction after it; its operand A gives the distance to the caller's base |
//! | 1 | a native, to be continued | bit 2 protected; 8..28 distance to its base; 28..44 its next state; 44..64 its number of arguments |
//! | 2 | a metamethod's caller | 8..28 distance to the caller's base; 28..32 what to do with the results; 32..40 the operand that a concatenation has come to; the address of its next instruction is in `base[-3]` |
//! | 3 | nobody, or a variadic head | bit 2 set: the frame of a variadic function, 8..28 the distance down to its frame with the extra arguments; clear: the task begins here |
//!
//! Nothing in a stack points into a stack, so it can be moved. Distances are in slots; a stack has at most [`MAX_SLOTS`].

use core::sync::atomic::AtomicU32;

use crate::bytecode::instructions::a;

/// The most slots that a task's stack may have.
pub(crate) const MAX_SLOTS: usize = 1_000_000;

/// So many more has a message handler that runs because of them. With these, distances need 20 bits.
pub(crate) const HANDLER_SLOTS: usize = 40_000;

/// Slots that are free above every frame: room for a metamethod's frame header and operands, and for a native's own use.
pub(crate) const SLACK: usize = 64;

/// What becomes of a metamethod's results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Continuation {
    /// The first goes to register A of the instruction.
    Store = 0,
    /// The first, as a condition, decides the jump after a comparison.
    Condition = 1,
    /// As `Condition`, negated.
    NegatedCondition = 2,
    /// They are dropped.
    Discard = 3,
    /// The first replaces the last two operands of a concatenation that goes on.
    Concatenate = 4,
    /// They are dropped, and the instruction runs again: a `CLOSE` with more to close.
    Again = 5,
    /// They are dropped, and the error in `base[-4]` goes on unwinding: what was called closed a variable on its way.
    Unwind = 6,
    /// As `Again`, where open results stand below what was called; `base[-4]` says how many.
    AgainOpen = 7,
    /// They are dropped, and the coroutine that is being closed closes its next variable.
    Shut = 8,
    /// The first is what a message handler made of an error, which goes on unwinding with it.
    Handled = 9,
    /// As `Unwind`, on the way of a cancellation; an error of what was called ends here.
    UnwindCancelled = 10,
}

/// A link word, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Link {
    /// Called by an instruction of a Vua function; the instruction after it.
    Vua(*const AtomicU32),
    /// Called by a native.
    Native {
        protected: bool,
        distance: usize,
        state: u32,
        count: usize,
    },
    /// A metamethod, called by an instruction.
    Metamethod {
        distance: usize,
        then: Continuation,
        operand: u8,
    },
    /// A variadic function's own frame, behind its extra arguments.
    Variadic { distance: usize },
    /// The first frame of a task.
    Bottom,
}

impl Link {
    #[inline(always)]
    pub(crate) fn encode(self) -> u64 {
        match self {
            Link::Vua(pc) => pc.expose_provenance() as u64,
            Link::Native {
                protected,
                distance,
                state,
                count,
            } => {
                1 | (protected as u64) << 2
                    | (distance as u64) << 8
                    | ((state & 0xffff) as u64) << 28
                    | (count as u64) << 44
            }
            Link::Metamethod {
                distance,
                then,
                operand,
            } => 2 | (distance as u64) << 8 | (then as u64) << 28 | (operand as u64) << 32,
            Link::Variadic { distance } => 3 | 4 | (distance as u64) << 8,
            Link::Bottom => 3,
        }
    }

    #[inline(always)]
    pub(crate) fn decode(word: u64) -> Link {
        let distance = (word >> 8 & 0xf_ffff) as usize;
        match word & 3 {
            0 => Link::Vua(core::ptr::with_exposed_provenance(word as usize)),
            1 => Link::Native {
                protected: word & 4 != 0,
                distance,
                state: (word >> 28 & 0xffff) as u32,
                count: (word >> 44) as usize,
            },
            2 => Link::Metamethod {
                distance,
                then: match word >> 28 & 0xf {
                    0 => Continuation::Store,
                    1 => Continuation::Condition,
                    2 => Continuation::NegatedCondition,
                    3 => Continuation::Discard,
                    4 => Continuation::Concatenate,
                    5 => Continuation::Again,
                    6 => Continuation::Unwind,
                    7 => Continuation::AgainOpen,
                    8 => Continuation::Shut,
                    9 => Continuation::Handled,
                    _ => Continuation::UnwindCancelled,
                },
                operand: (word >> 32) as u8,
            },
            _ if word & 4 != 0 => Link::Variadic { distance },
            _ => Link::Bottom,
        }
    }
}

/// One frame, as a walk from the innermost outwards sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Register 0.
    pub base: *mut u64,
    /// The instruction to go on with, after the one that is being executed; null in a native's frame.
    pub pc: *const AtomicU32,
}

impl Frame {
    /// The link of this frame.
    ///
    /// # Safety
    /// The frame is one of a live stack that does not change meanwhile.
    #[inline(always)]
    pub(crate) unsafe fn link(self) -> Link {
        // SAFETY: the slot below a base is its link.
        Link::decode(unsafe { *self.base.sub(1) })
    }

    /// The frame that called this one; `None` for a task's first.
    ///
    /// # Safety
    /// As for [`link`](Self::link).
    pub(crate) unsafe fn caller(self) -> Option<Frame> {
        // SAFETY: links lead from frame to frame of the same stack.
        unsafe {
            match self.link() {
                Link::Vua(pc) => {
                    let call = (*pc.sub(1)).load(core::sync::atomic::Ordering::Relaxed);
                    Some(Frame {
                        base: self.base.sub(2 + a(call)),
                        pc,
                    })
                }
                Link::Native { distance, .. } => Some(Frame {
                    base: self.base.sub(distance),
                    pc: core::ptr::null(),
                }),
                Link::Metamethod { distance, .. } => {
                    let pc = core::ptr::with_exposed_provenance(*self.base.sub(3) as usize);
                    Some(Frame {
                        base: self.base.sub(distance),
                        pc,
                    })
                }
                Link::Variadic { distance } => Frame {
                    base: self.base.sub(distance),
                    pc: self.pc,
                }
                .caller(),
                Link::Bottom => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_survive_encoding() {
        let native = Link::Native {
            protected: true,
            distance: 999_999,
            state: 65_535,
            count: 1_000_000,
        };
        match Link::decode(native.encode()) {
            Link::Native {
                protected: true,
                distance: 999_999,
                state: 65_535,
                count: 1_000_000,
            } => {}
            other => panic!("{other:?}"),
        }
        for then in [
            Continuation::Store,
            Continuation::Condition,
            Continuation::NegatedCondition,
            Continuation::Discard,
            Continuation::Concatenate,
            Continuation::Again,
            Continuation::Unwind,
            Continuation::AgainOpen,
            Continuation::Shut,
            Continuation::Handled,
            Continuation::UnwindCancelled,
        ] {
            match Link::decode(
                (Link::Metamethod {
                    distance: 77,
                    then,
                    operand: 249,
                })
                .encode(),
            ) {
                Link::Metamethod {
                    distance: 77,
                    then: found,
                    operand: 249,
                } => assert_eq!(found, then),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            Link::decode(Link::Variadic { distance: 12 }.encode()),
            Link::Variadic { distance: 12 }
        ));
        assert!(matches!(Link::decode(Link::Bottom.encode()), Link::Bottom));
    }
}
