//! The kernel's binary: what a freestanding program needs beside the library.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

#[global_allocator]
static HEAP: kernel::memory::heap::Heap = kernel::memory::heap::new();

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    kernel::panic::panicked(info)
}

/// The prebuilt `core` refers to it; panics abort, so it is never called.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    unreachable!("panics abort")
}

// Keeps the library's entry point in the program: the linker script names it.
unsafe extern "C" {
    fn viridis_start() -> !;
}
#[used]
static START: unsafe extern "C" fn() -> ! = viridis_start;
