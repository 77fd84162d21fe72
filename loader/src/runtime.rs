//! What compiled Rust expects to find at link time and the C runtime, which is not linked, would give: the memory
//! functions that the compiler calls, the unwinder's symbols that the prebuilt `core` mentions, and the panic handler.

use crate::machine;
use core::arch::asm;

/// The prebuilt `core` refers to it; with `panic = "abort"` nothing calls it.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As [`rust_eh_personality`].
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    machine::stop(format_args!("unwinding in the loader"))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    machine::stop(format_args!("{info}"))
}

// These use string instructions and not loops, which the compiler would turn into calls of the same functions. Words
// first: an emulator runs one iteration of `rep movsq` as fast as one of `rep movsb`.

/// C's `memcpy`.
///
/// # Safety
/// `source` can be read and `target` written for `length` bytes, and they do not overlap.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise covers both ranges; the direction flag is clear, as the ABI demands.
    unsafe {
        asm!(
            "rep movsq",
            "mov rcx, {rest}",
            "rep movsb",
            rest = in(reg) length & 7,
            inout("rcx") length / 8 => _,
            inout("rsi") source => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags)
        );
    }
    target
}

/// C's `memmove`.
///
/// # Safety
/// `source` can be read and `target` written for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(target: *mut u8, source: *const u8, length: usize) -> *mut u8 {
    if (target as usize).wrapping_sub(source as usize) >= length {
        // SAFETY: going up never overwrites a byte before it is read, for `target` is not inside the source.
        return unsafe { memcpy(target, source, length) };
    }
    // SAFETY: going down never overwrites a byte before it is read, for `target` lies above `source`. The ranges are the
    // caller's; `length` is not 0 here.
    unsafe {
        asm!(
            "std",
            "rep movsb",
            "cld",
            inout("rcx") length => _,
            inout("rsi") source.add(length - 1) => _,
            inout("rdi") target.add(length - 1) => _,
            options(nostack)
        );
    }
    target
}

/// C's `memset`.
///
/// # Safety
/// `target` can be written for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut u8, value: i32, length: usize) -> *mut u8 {
    // SAFETY: the caller's promise covers the range; the direction flag is clear, as the ABI demands.
    unsafe {
        asm!(
            "rep stosq",
            "mov rcx, {rest}",
            "rep stosb",
            rest = in(reg) length & 7,
            in("rax") u64::from(value as u8) * 0x0101_0101_0101_0101,
            inout("rcx") length / 8 => _,
            inout("rdi") target => _,
            options(nostack, preserves_flags)
        );
    }
    target
}

/// C's `memcmp`.
///
/// # Safety
/// Both can be read for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    let mut index = 0;
    while index < length {
        // SAFETY: the index is below `length`, for which the caller promises that both can be read. Volatile, because a
        // plain loop would be turned into a call of this function.
        let (left, right) = unsafe {
            (
                one.add(index).read_volatile(),
                other.add(index).read_volatile(),
            )
        };
        if left != right {
            return i32::from(left) - i32::from(right);
        }
        index += 1;
    }
    0
}

/// BSD's `bcmp`: `memcmp`, where only zero or not matters.
///
/// # Safety
/// Both can be read for `length` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, length: usize) -> i32 {
    // SAFETY: the same promise.
    unsafe { memcmp(one, other, length) }
}

/// C's `strlen`.
///
/// # Safety
/// A zero byte follows at or after `string`, and everything up to it can be read.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(string: *const u8) -> usize {
    let mut length = 0;
    // SAFETY: no zero has been seen yet, so this byte can be read. Volatile for the reason given in `memcmp`.
    while unsafe { string.add(length).read_volatile() } != 0 {
        length += 1;
    }
    length
}
