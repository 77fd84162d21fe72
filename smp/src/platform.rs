//! The one seam between the engine and what it runs on.
//!
//! The kernel implements [`Platform`] with local APICs, page tables and serial ports; the `vua` command with threads,
//! `mmap` and file descriptors. Everything above it is the same code, so whatever can be tested on the host is.

use core::ptr::NonNull;
use core::time::Duration;

/// The index of a core, from 0 to [`Platform::cpus`]` - 1`. Dense, and fixed from boot to power-off.
pub type Cpu = usize;

/// Where [`Platform::write`] sends bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// What the program prints: nothing else may appear there.
    Output,
    /// Errors, warnings, statistics and logs.
    Error,
}

/// What [`Platform::read`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// This many bytes (at least one) were put at the start of the buffer.
    Bytes(usize),
    /// Nothing has arrived yet; the platform calls the engine's `input_arrived` when that changes.
    Pending,
    /// The input has ended; every later read says so too.
    End,
}

/// Why a file operation failed. The text that a program sees is the engine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileError {
    /// No file of that name.
    NotFound,
    /// The name, or the file, may not be written.
    ReadOnly,
    /// The store is full.
    NoSpace,
    /// Something else that the host reported.
    Other,
}

/// A picture surface of 32-bit pixels, `0x00RRGGBB` each.
pub trait Screen: Sync {
    /// Width and height in pixels.
    fn size(&self) -> (usize, usize);
    /// Draws `rgb` (three bytes a pixel, row by row, `width` pixels a row) with its top left corner at (`x`, `y`);
    /// what lies outside the surface is cut off. Callers may race; pixels are then from either.
    fn draw(&self, x: usize, y: usize, width: usize, rgb: &[u8]);
}

/// What the engine needs from the machine or the operating system under it.
///
/// Methods may be called from any core at any time unless they say otherwise; none may call back into the engine
/// except as documented, and none waits for another core.
pub trait Platform: Sync {
    /// How many cores run [`crate::scheduler`] loops. At least 1; does not change.
    fn cpus(&self) -> usize;

    /// Halts the calling core, which is `cpu`, until [`unpark`](Self::unpark) is called for it or `deadline` (in
    /// [`now`](Self::now)'s time) is past. An `unpark` since the last return of `park` makes it return at once
    /// (one token, as in `std::thread::park`). It may return early for no reason.
    ///
    /// What `unpark`'s caller wrote before is visible after `park` returns (release to acquire).
    fn park(&self, cpu: Cpu, deadline: Option<u64>);

    /// Makes core `cpu`'s current or next [`park`](Self::park) return. Lock-free; callable from interrupt handlers.
    fn unpark(&self, cpu: Cpu);

    /// Nanoseconds since some fixed moment; never goes back, agrees between cores.
    fn now(&self) -> u64;

    /// Asks that `poll` be called on core `cpu` after about `nanoseconds`, once: the engine's heartbeat. A new request replaces the
    /// core's former one. `poll` runs in an interrupt handler or another thread and only stores to atomics.
    fn heartbeat(&self, cpu: Cpu, nanoseconds: u64);

    /// Maps zeroed memory of `bytes` (a multiple of 64 KiB), aligned to `align` (a power of two, at least 64 KiB),
    /// wholly below address 2^47, never at 0. `None` when there is no more.
    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>>;

    /// Gives memory back.
    ///
    /// # Safety
    /// `start` and `bytes` are those of one earlier [`map`](Self::map), and nothing uses the memory any more.
    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize);

    /// Sets `bytes` aside for memory that the engine is going to take from Rust's allocator, which cannot say no: [`map`](Self::map)
    /// leaves so much. `false`, and nothing set aside, if there is not so much. Until [`unreserve`](Self::unreserve).
    ///
    /// A platform whose allocator ends only the program when it has no more need not do anything.
    fn reserve(&self, bytes: usize) -> bool {
        let _ = bytes;
        true
    }

    /// Ends what [`reserve`](Self::reserve) began.
    fn unreserve(&self, bytes: usize) {
        let _ = bytes;
    }

    /// Writes all of `bytes`; writes by different cores do not mix.
    fn write(&self, stream: Stream, bytes: &[u8]);

    /// Reads what input there is, without waiting.
    fn read(&self, buffer: &mut [u8]) -> Input;

    /// The whole content of a file: written earlier, or from the boot archive (on the host: the file system).
    /// `name` is a relative path with `/`; the bytes live until the end of the machine or are copied by `take`.
    fn read_file(&self, name: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FileError>;

    /// Creates or replaces a file.
    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), FileError>;

    /// Removes a file that was written.
    fn remove_file(&self, name: &str) -> Result<(), FileError>;

    /// Wall-clock time since 1970-01-01T00:00:00Z.
    fn wall_clock(&self) -> Duration;

    /// 64 unpredictable bits, to seed hashes and random numbers.
    fn entropy(&self) -> u64;

    /// The screen, if there is one.
    fn screen(&self) -> Option<&dyn Screen> {
        None
    }
}
