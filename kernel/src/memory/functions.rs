//! The C library's memory functions, which compiled code calls.
//!
//! In assembly, because compilers recognise such loops in Rust and turn them into calls of these very functions. Sixteen-byte
//! SSE moves, 64 bytes a turn: within a few percent of `rep movsb` on current processors, and several times faster where
//! string instructions are interpreted byte by byte, as under an emulator. No function uses the direction flag.
//!
//! The linker script gives them their C names in the kernel; under the host's tests, which have a C library, they keep their own.

use core::arch::global_asm;

global_asm!(
    ".macro viridis_function name",
    ".globl \\name",
    ".type \\name, @function",
    ".balign 32",
    "\\name:",
    ".endm",
    //
    // void *memcpy(rdi: to, rsi: from, rdx: bytes); also memmove when the target lies below the source or apart.
    "viridis_function viridis_memcpy",
    "mov rax, rdi",
    "viridis_copy_forwards:",
    "cmp rdx, 16",
    "jb 5f",
    "cmp rdx, 32",
    "jbe 4f",
    // Head and tail are loaded before anything is stored, so that an overlap cannot spoil them.
    "movups xmm4, [rsi + rdx - 16]",
    "lea r8, [rdi + rdx - 16]",
    "cmp rdx, 80",
    "jb 3f",
    "2:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + 16]",
    "movups xmm2, [rsi + 32]",
    "movups xmm3, [rsi + 48]",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm1",
    "movups [rdi + 32], xmm2",
    "movups [rdi + 48], xmm3",
    "add rsi, 64",
    "add rdi, 64",
    "sub rdx, 64",
    "cmp rdx, 80",
    "jae 2b",
    // 16 to 79 bytes are left; whole sixteens, then the tail that was saved.
    "3:",
    "cmp rdx, 16",
    "jbe 6f",
    "movups xmm0, [rsi]",
    "movups [rdi], xmm0",
    "add rsi, 16",
    "add rdi, 16",
    "sub rdx, 16",
    "jmp 3b",
    "6:",
    "movups [r8], xmm4",
    "ret",
    // 16 to 32 bytes.
    "4:",
    "movups xmm0, [rsi]",
    "movups xmm1, [rsi + rdx - 16]",
    "movups [rdi], xmm0",
    "movups [rdi + rdx - 16], xmm1",
    "ret",
    // Up to 15 bytes, each size by two overlapping moves.
    "5:",
    "cmp edx, 8",
    "jae 7f",
    "cmp edx, 4",
    "jae 8f",
    "test edx, edx",
    "jz 9f",
    "movzx ecx, byte ptr [rsi]",
    "movzx r8d, byte ptr [rsi + rdx - 1]",
    "cmp edx, 3",
    "jne 10f",
    "movzx r9d, byte ptr [rsi + 1]",
    "mov [rdi + 1], r9b",
    "10:",
    "mov [rdi], cl",
    "mov [rdi + rdx - 1], r8b",
    "9:",
    "ret",
    "8:",
    "mov ecx, [rsi]",
    "mov r8d, [rsi + rdx - 4]",
    "mov [rdi], ecx",
    "mov [rdi + rdx - 4], r8d",
    "ret",
    "7:",
    "mov rcx, [rsi]",
    "mov r8, [rsi + rdx - 8]",
    "mov [rdi], rcx",
    "mov [rdi + rdx - 8], r8",
    "ret",
    //
    // void *memmove(rdi: to, rsi: from, rdx: bytes)
    "viridis_function viridis_memmove",
    "mov rax, rdi",
    "mov rcx, rdi",
    "sub rcx, rsi",
    // Unsigned: below `bytes` only when the target starts inside the source.
    "cmp rcx, rdx",
    "jae viridis_copy_forwards",
    "cmp rdx, 32",
    "jbe viridis_copy_forwards",
    // Backwards; the head is loaded first and stored last.
    "movups xmm4, [rsi]",
    "cmp rdx, 80",
    "jb 3f",
    "2:",
    "movups xmm0, [rsi + rdx - 16]",
    "movups xmm1, [rsi + rdx - 32]",
    "movups xmm2, [rsi + rdx - 48]",
    "movups xmm3, [rsi + rdx - 64]",
    "movups [rdi + rdx - 16], xmm0",
    "movups [rdi + rdx - 32], xmm1",
    "movups [rdi + rdx - 48], xmm2",
    "movups [rdi + rdx - 64], xmm3",
    "sub rdx, 64",
    "cmp rdx, 80",
    "jae 2b",
    "3:",
    "cmp rdx, 16",
    "jbe 4f",
    "movups xmm0, [rsi + rdx - 16]",
    "movups [rdi + rdx - 16], xmm0",
    "sub rdx, 16",
    "jmp 3b",
    "4:",
    "movups [rdi], xmm4",
    "ret",
    //
    // void *memset(rdi: to, esi: byte, rdx: bytes)
    "viridis_function viridis_memset",
    "mov rax, rdi",
    "movzx ecx, sil",
    "mov r8, 0x0101010101010101",
    "imul rcx, r8",
    "cmp rdx, 16",
    "jb 5f",
    "movq xmm0, rcx",
    "punpcklqdq xmm0, xmm0",
    "movups [rdi + rdx - 16], xmm0",
    "cmp rdx, 64",
    "jb 3f",
    "2:",
    "movups [rdi], xmm0",
    "movups [rdi + 16], xmm0",
    "movups [rdi + 32], xmm0",
    "movups [rdi + 48], xmm0",
    "add rdi, 64",
    "sub rdx, 64",
    "cmp rdx, 64",
    "jae 2b",
    "3:",
    "cmp rdx, 16",
    "jb 4f",
    "movups [rdi], xmm0",
    "add rdi, 16",
    "sub rdx, 16",
    "jmp 3b",
    "4:",
    "ret",
    "5:",
    "cmp edx, 8",
    "jae 7f",
    "cmp edx, 4",
    "jae 8f",
    "test edx, edx",
    "jz 9f",
    "mov [rdi], cl",
    "mov [rdi + rdx - 1], cl",
    "cmp edx, 3",
    "jne 9f",
    "mov [rdi + 1], cl",
    "9:",
    "ret",
    "8:",
    "mov [rdi], ecx",
    "mov [rdi + rdx - 4], ecx",
    "ret",
    "7:",
    "mov [rdi], rcx",
    "mov [rdi + rdx - 8], rcx",
    "ret",
    //
    // int memcmp(rdi: left, rsi: right, rdx: bytes); bcmp asks only whether they are equal.
    "viridis_function viridis_memcmp",
    "cmp rdx, 8",
    "jb 4f",
    "2:",
    "mov rax, [rdi]",
    "mov rcx, [rsi]",
    "cmp rax, rcx",
    "jne 3f",
    "add rdi, 8",
    "add rsi, 8",
    "sub rdx, 8",
    "cmp rdx, 8",
    "jae 2b",
    "4:",
    "test rdx, rdx",
    "jz 5f",
    "movzx eax, byte ptr [rdi]",
    "movzx ecx, byte ptr [rsi]",
    "sub eax, ecx",
    "jne 6f",
    "inc rdi",
    "inc rsi",
    "dec rdx",
    "jmp 4b",
    "5:",
    "xor eax, eax",
    "6:",
    "ret",
    // The first byte that differs is the lowest, so the most significant after a swap.
    "3:",
    "bswap rax",
    "bswap rcx",
    "cmp rax, rcx",
    "sbb eax, eax",
    "or eax, 1",
    "ret",
    //
    // size_t strlen(rdi: text)
    "viridis_function viridis_strlen",
    "mov rax, rdi",
    "2:",
    "cmp byte ptr [rax], 0",
    "je 3f",
    "inc rax",
    "jmp 2b",
    "3:",
    "sub rax, rdi",
    "ret",
);

#[cfg(test)]
mod tests {
    use core::ffi::{c_char, c_int, c_void};
    use std::{vec, vec::Vec};

    unsafe extern "C" {
        fn viridis_memcpy(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
        fn viridis_memmove(to: *mut c_void, from: *const c_void, bytes: usize) -> *mut c_void;
        fn viridis_memset(to: *mut c_void, byte: c_int, bytes: usize) -> *mut c_void;
        fn viridis_memcmp(left: *const c_void, right: *const c_void, bytes: usize) -> c_int;
        fn viridis_strlen(text: *const c_char) -> usize;
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length)
            .map(|index| (index * 7 + index / 251) as u8)
            .collect()
    }

    const LENGTHS: core::ops::Range<usize> = 0..300;

    #[test]
    fn copies_exactly() {
        for length in LENGTHS {
            for (from, to) in [(0, 0), (1, 0), (3, 5)] {
                let source = pattern(from + length);
                let mut target = vec![0xaau8; to + length + 20];
                // SAFETY: both are long enough and apart.
                let result = unsafe {
                    viridis_memcpy(
                        target[to..].as_mut_ptr().cast(),
                        source[from..].as_ptr().cast(),
                        length,
                    )
                };
                assert_eq!(result, target[to..].as_mut_ptr().cast());
                assert_eq!(target[to..to + length], source[from..], "{length}");
                assert!(
                    target[..to]
                        .iter()
                        .chain(&target[to + length..])
                        .all(|&byte| byte == 0xaa),
                    "{length}"
                );
            }
        }
    }

    #[test]
    fn moves_within_a_buffer() {
        for length in LENGTHS {
            for (from, to) in [
                (0, 1),
                (1, 0),
                (0, 15),
                (15, 0),
                (0, 17),
                (17, 0),
                (0, 63),
                (64, 0),
                (0, 100),
                (9, 9),
            ] {
                let mut buffer = pattern(500);
                let mut expected = buffer.clone();
                expected.copy_within(from..from + length, to);
                let start = buffer.as_mut_ptr();
                // SAFETY: both ends are inside the buffer.
                unsafe { viridis_memmove(start.add(to).cast(), start.add(from).cast(), length) };
                assert!(buffer == expected, "{length} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn fills_exactly() {
        for length in LENGTHS {
            let mut buffer = vec![0xaau8; length + 40];
            // SAFETY: the range is inside the buffer. Only the low byte of the value counts.
            unsafe { viridis_memset(buffer[20..].as_mut_ptr().cast(), 0x1234_5677, length) };
            assert!(
                buffer[20..20 + length].iter().all(|&byte| byte == 0x77),
                "{length}"
            );
            assert!(
                buffer[..20]
                    .iter()
                    .chain(&buffer[20 + length..])
                    .all(|&byte| byte == 0xaa),
                "{length}"
            );
        }
    }

    #[test]
    fn compares_as_unsigned_bytes() {
        for length in LENGTHS {
            let left = pattern(length);
            // SAFETY: both are that long.
            let compare = |right: &[u8]| unsafe {
                viridis_memcmp(left.as_ptr().cast(), right.as_ptr().cast(), length)
            };
            assert_eq!(compare(&left.clone()), 0);
            for at in 0..length {
                let mut right = left.clone();
                right[at] ^= 0x80;
                // What follows must not matter.
                if at + 1 < length {
                    right[at + 1] ^= 0xff;
                }
                assert_eq!(
                    compare(&right).signum(),
                    if left[at] > right[at] { 1 } else { -1 },
                    "{length} at {at}"
                );
            }
        }
    }

    #[test]
    fn measures_text() {
        for length in 0..40 {
            let mut text = vec![b'x'; length];
            text.extend([0, b'y']);
            // SAFETY: the text ends in a zero.
            assert_eq!(unsafe { viridis_strlen(text.as_ptr().cast()) }, length);
        }
    }
}
