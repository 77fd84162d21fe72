//! Backtraces, from the unwind tables (`.eh_frame`) that the compiler makes for every function.
//!
//! Frame pointers would cost a register in every function, the interpreter's included; the tables cost 150 KiB of memory. They
//! are evaluated by `gimli`, without allocation, and only in reports: a walk reads memory of mapped stacks only, goes only
//! upwards, and ends at the first thing that it does not understand.

use crate::{
    cpu::interrupts::Frame,
    memory::{image, stacks},
    symbols::Place,
};
use core::fmt;
use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, LittleEndian, Register, RegisterRule,
    UnwindContext, UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};

/// Room for the rules of one row, on the stack: a function saves six registers, and names its return address.
struct Storage;

impl UnwindContextStorage<usize> for Storage {
    type Rules = [(Register, RegisterRule<usize>); 20];
    type Stack = [UnwindTableRow<usize, Self>; 3];
}

/// Registers by their DWARF numbers (System V ABI, AMD64 supplement, figure 3.36).
const REGISTERS: usize = 17;

/// The state of one activation: what is known of its registers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    registers: [Option<u64>; REGISTERS],
    /// The instruction pointer was pushed by a call: the call is before it.
    called: bool,
}

impl Cursor {
    /// The interrupted code's.
    pub(crate) fn interrupted(frame: &Frame) -> Self {
        let mut registers = [None; REGISTERS];
        let known = [
            (X86_64::RBX, frame.rbx),
            (X86_64::RBP, frame.rbp),
            (X86_64::RSP, frame.rsp),
            (X86_64::R12, frame.r12),
            (X86_64::R13, frame.r13),
            (X86_64::R14, frame.r14),
            (X86_64::R15, frame.r15),
            (X86_64::RA, frame.rip),
        ];
        for (register, value) in known {
            registers[usize::from(register.0)] = Some(value);
        }
        Self {
            registers,
            called: false,
        }
    }

    /// The calling function's own.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let mut saved = [0u64; 8];
        // SAFETY: only reads registers and writes the array.
        unsafe {
            core::arch::asm!(
                "mov [rax], rbx",
                "mov [rax + 8], rbp",
                "mov [rax + 16], rsp",
                "mov [rax + 24], r12",
                "mov [rax + 32], r13",
                "mov [rax + 40], r14",
                "mov [rax + 48], r15",
                "lea rcx, [rip]",
                "mov [rax + 56], rcx",
                in("rax") saved.as_mut_ptr(),
                out("rcx") _,
                options(nostack, preserves_flags),
            );
        }
        let mut registers = [None; REGISTERS];
        let order = [
            X86_64::RBX,
            X86_64::RBP,
            X86_64::RSP,
            X86_64::R12,
            X86_64::R13,
            X86_64::R14,
            X86_64::R15,
            X86_64::RA,
        ];
        for (register, value) in order.into_iter().zip(saved) {
            registers[usize::from(register.0)] = Some(value);
        }
        Self {
            registers,
            called: false,
        }
    }

    /// Where this activation is.
    pub(crate) fn address(&self) -> Option<u64> {
        self.get(X86_64::RA)
    }

    fn get(&self, register: Register) -> Option<u64> {
        self.registers
            .get(usize::from(register.0))
            .copied()
            .flatten()
    }

    /// The caller of an activation that has pushed nothing.
    fn leaf(&self) -> Option<Self> {
        let top = self.get(X86_64::RSP)?;
        let address = load(top).filter(|address| image::text().contains(address))?;
        let mut registers = self.registers;
        registers[usize::from(X86_64::RA.0)] = Some(address);
        registers[usize::from(X86_64::RSP.0)] = Some(top + 8);
        Some(Self {
            registers,
            called: true,
        })
    }

    /// This activation's caller.
    fn caller(&self) -> Option<Self> {
        let address = self.address()?;
        let looked_up = address.wrapping_sub(u64::from(self.called));
        let (tables, bases) = tables()?;
        let mut context = UnwindContext::<usize, Storage>::new_in();
        let row = image::text().contains(&looked_up).then(|| {
            let get_cie = EhFrame::cie_from_offset;
            tables.unwind_info_for_address(&bases, &mut context, looked_up, get_cie)
        });
        let Some(Ok(row)) = row else {
            // Assembly, or no code at all. If it was called, as a function that has pushed nothing yet, the return address is
            // on top.
            return (!self.called).then(|| self.leaf()).flatten();
        };
        let CfaRule::RegisterAndOffset { register, offset } = *row.cfa() else {
            return None;
        };
        let frame = self.get(register)?.wrapping_add_signed(offset);
        // Upwards only, so that a walk ends.
        if frame <= self.get(X86_64::RSP)? {
            return None;
        }
        let mut registers = [None; REGISTERS];
        for (number, value) in registers.iter_mut().enumerate() {
            let register = Register(number as u16);
            *value = match row.register(register) {
                Some(RegisterRule::Offset(offset)) => load(frame.wrapping_add_signed(offset)),
                Some(RegisterRule::ValOffset(offset)) => Some(frame.wrapping_add_signed(offset)),
                Some(RegisterRule::Register(other)) => self.get(other),
                Some(RegisterRule::SameValue) => self.get(register),
                // What a callee saves, it has not changed.
                None if register != X86_64::RA => self.get(register),
                _ => None,
            };
        }
        registers[usize::from(X86_64::RSP.0)] = Some(frame);
        Some(Self {
            registers,
            called: true,
        })
    }
}

/// A word of a stack, if it is one that is mapped.
fn load(address: u64) -> Option<u64> {
    let stack = stacks::used(address).filter(|_| address.is_multiple_of(8))?;
    let inside = stack.start <= address && address + 8 <= stack.end;
    // SAFETY: mapped for good, and aligned.
    inside.then(|| unsafe { (address as *const u64).read_volatile() })
}

type Tables = EhFrame<EndianSlice<'static, LittleEndian>>;

/// The unwind tables, or `None` where the image has none.
fn tables() -> Option<(Tables, BaseAddresses)> {
    let range = image::unwind_tables();
    let length = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
    if length == 0 {
        return None;
    }
    // SAFETY: constants of the image, mapped for good and never written.
    let bytes = unsafe { core::slice::from_raw_parts(range.start as *const u8, length) };
    let bases = BaseAddresses::default()
        .set_eh_frame(range.start)
        .set_text(image::text().start);
    Some((EhFrame::new(bytes, LittleEndian), bases))
}

/// A backtrace, a line for each activation from the innermost on, each after a line break.
pub(crate) struct Backtrace {
    /// The innermost.
    pub(crate) from: Cursor,
    /// How many activations to show at most.
    pub(crate) most: usize,
}

impl fmt::Display for Backtrace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let walk = core::iter::successors(Some(self.from), Cursor::caller);
        let places = walk.filter_map(|cursor| {
            let address = cursor.address().filter(|&address| address != 0)?;
            Some(if cursor.called {
                Place::behind_call(address)
            } else {
                Place::of(address)
            })
        });
        let mut left = self.most;
        for place in places {
            if left == 0 {
                return out.write_str("\n    ...");
            }
            left -= 1;
            write!(out, "\n    {place}")?;
        }
        Ok(())
    }
}
