//! The machine that the `vua` command offers to the engine: a thread stands for a core, `mmap` for page tables, file
//! descriptors for serial ports.
//!
//! Nothing here waits for another worker. Every wait is a futex on a word of its own: [`Host::park`] on the core's
//! token, the timer thread on its alarm, the input thread on its request.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smp::platform::{Cpu, FileError, Input, Platform, Stream};

use crate::prompt::Lines;

/// What the platform calls when something happened. The engine's side of the seam; each call only stores to atomics and wakes.
pub trait Events: Sync {
    /// The time that [`Platform::heartbeat`] asked for has come on core `cpu`.
    fn beat(&self, cpu: Cpu);
    /// [`Platform::read`] said `Pending`, and there is input, or its end, now.
    fn input_arrived(&self);
}

/// A word that threads sleep on (futex(2)).
struct Futex(AtomicU32);

impl Futex {
    const fn new() -> Futex {
        Futex(AtomicU32::new(0))
    }

    /// Sleeps while the word is `seen`, until woken or until `deadline`, in nanoseconds of `CLOCK_MONOTONIC`. May return early.
    fn wait(&self, seen: u32, deadline: Option<u64>) {
        let time = deadline.map(|at| libc::timespec {
            tv_sec: (at / 1_000_000_000).min(i64::MAX as u64) as libc::time_t,
            tv_nsec: (at % 1_000_000_000) as libc::c_long,
        });
        let time = time
            .as_ref()
            .map_or(std::ptr::null(), |t| t as *const libc::timespec);
        // FUTEX_WAIT_BITSET and not FUTEX_WAIT: its time is absolute, on the clock that `now` reads.
        // SAFETY: the word and the time outlive the call, which reads them only.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG,
                seen,
                time,
                std::ptr::null::<u32>(),
                libc::FUTEX_BITSET_MATCH_ANY,
            );
        }
    }

    /// Wakes one sleeper.
    fn wake(&self) {
        // SAFETY: FUTEX_WAKE uses the word's address as a key and does not access what is there.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                1,
            );
        }
    }
}

/// Mappings from this size on get large pages, of 2 MiB, where they fit.
const LARGE_PAGES_FROM: usize = 4 << 20;

const EMPTY: u32 = 0;
const PARKED: u32 = 1;
const NOTIFIED: u32 = 2;

/// What belongs to one core; alone on its cache lines, as its neighbours' are written by other threads.
#[repr(align(128))]
struct Core {
    /// EMPTY; PARKED while the worker sleeps; NOTIFIED holds the one token.
    token: Futex,
    /// When the heartbeat is due, in nanoseconds of `now`; [`NEVER`] when none was asked for.
    beat: AtomicU64,
}

const NEVER: u64 = u64::MAX;

/// The host as a [`Platform`].
pub struct Host {
    cores: Box<[Core]>,
    events: OnceLock<&'static dyn Events>,
    /// Counts requests that the timer thread has to look at.
    alarm: Futex,
    /// When the timer thread wakes by itself; a later heartbeat needs no alarm.
    alarm_at: AtomicU64,
    /// 1 while somebody waits for input.
    wanted: Futex,
    input: Mutex<()>,
    output: [Mutex<()>; 2],
    program_folder: PathBuf,
    /// Where the next mapping goes, if that is not left to the system.
    fixed: AtomicUsize,
    /// The state from which [`Platform::entropy`] comes after [`Host::fix_entropy`]; 0: the system gives it.
    seed: AtomicU64,
    /// At a prompt: where input comes from.
    lines: OnceLock<Lines>,
}

/// Where memory begins after [`Host::fix_memory`]: far from where Linux puts executables, libraries, stacks and, unasked, mappings.
const FIXED_START: usize = 0x1000_0000_0000;

impl Host {
    /// A machine of `cpus` cores for the program that lies in `program_folder`.
    pub fn new(cpus: usize, program_folder: PathBuf) -> Host {
        let core = || Core {
            token: Futex::new(),
            beat: AtomicU64::new(NEVER),
        };
        Host {
            cores: (0..cpus).map(|_| core()).collect(),
            events: OnceLock::new(),
            alarm: Futex::new(),
            alarm_at: AtomicU64::new(NEVER),
            wanted: Futex::new(),
            input: Mutex::new(()),
            output: [const { Mutex::new(()) }; 2],
            program_folder,
            fixed: AtomicUsize::new(0),
            seed: AtomicU64::new(0),
            lines: OnceLock::new(),
        }
    }

    /// From now on input is what a person types in an editor. Once, before any worker runs.
    pub fn edit_lines(&self, lines: Lines) {
        assert!(self.lines.set(lines).is_ok(), "one editor");
    }

    /// From now on [`Platform::entropy`] gives what follows from `seed`.
    pub fn fix_entropy(&self, seed: u64) {
        self.seed.store(seed.max(1), Ordering::Relaxed);
    }

    /// From now on [`Platform::map`] gives the same addresses in each process that asks for the same sizes: one behind the other, none twice.
    pub fn fix_memory(&self) {
        self.fixed.store(FIXED_START, Ordering::Relaxed);
    }

    /// Memory behind the last fixed mapping.
    fn map_fixed(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let place = |next: usize| {
            let start = next.checked_next_multiple_of(align)?;
            let end = start.checked_add(bytes)?;
            (end <= FIXED_START << 1).then_some((start, end))
        };
        let former = self
            .fixed
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
                place(next).map(|(_, end)| end)
            })
            .ok()?;
        let (start, _) = place(former)?;
        // SAFETY: a new private mapping; MAP_FIXED_NOREPLACE fails rather than take the place of another.
        let mapped = unsafe {
            libc::mmap(
                std::ptr::with_exposed_provenance_mut(start),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE
                    | libc::MAP_ANONYMOUS
                    | libc::MAP_NORESERVE
                    | libc::MAP_FIXED_NOREPLACE,
                -1,
                0,
            )
        };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        NonNull::new(mapped.cast())
    }

    /// Says who is told of heartbeats and input. Once, before any worker runs.
    pub fn attach(&self, events: &'static dyn Events) {
        assert!(
            self.events.set(events).is_ok(),
            "a platform serves one engine"
        );
    }

    /// Waits for heartbeats that are due and calls for them; never returns.
    ///
    /// No request is lost: a caller of `heartbeat` stores its time, then reads `alarm_at`; this thread stores `alarm_at`,
    /// then reads the times, and both are sequentially consistent. So either the caller sees that the thread is looking (or
    /// will sleep too long) and raises the alarm, or the thread sees the caller's time.
    fn keep_time(&self) {
        loop {
            let seen = self.alarm.0.load(Ordering::SeqCst);
            self.alarm_at.store(NEVER, Ordering::SeqCst);
            let now = self.now();
            let mut earliest = NEVER;
            for (cpu, core) in self.cores.iter().enumerate() {
                let at = core.beat.load(Ordering::SeqCst);
                if at > now {
                    earliest = earliest.min(at);
                } else if core
                    .beat
                    .compare_exchange(at, NEVER, Ordering::SeqCst, Ordering::SeqCst)
                    .is_ok()
                {
                    if let Some(events) = self.events.get() {
                        events.beat(cpu);
                    }
                } else {
                    // Asked again in between: look once more.
                    earliest = now;
                }
            }
            self.alarm_at.store(earliest, Ordering::SeqCst);
            self.alarm
                .wait(seen, (earliest != NEVER).then_some(earliest));
        }
    }

    /// Waits for input whenever somebody wants some; never returns.
    fn watch_input(&self) {
        loop {
            while self.wanted.0.load(Ordering::Acquire) == 0 {
                self.wanted.wait(0, None);
            }
            let ready = match self.lines.get() {
                // It ends the request itself, at the moment when the line is there.
                Some(lines) => {
                    lines.edit(&self.wanted.0);
                    true
                }
                None => {
                    let ready = poll_input(-1);
                    self.wanted.0.store(0, Ordering::Release);
                    ready
                }
            };
            if ready && let Some(events) = self.events.get() {
                events.input_arrived();
            }
        }
    }

    fn candidates(&self, name: &str) -> [PathBuf; 2] {
        candidates(&self.program_folder, name)
    }
}

/// Where a file may lie: under the current directory, then beside the program.
pub fn candidates(program_folder: &Path, name: &str) -> [PathBuf; 2] {
    [Path::new(name).to_path_buf(), program_folder.join(name)]
}

/// Whether a read from standard input would not wait; waits for that at most `milliseconds` (-1: for ever).
fn poll_input(milliseconds: i32) -> bool {
    let mut request = libc::pollfd {
        fd: libc::STDIN_FILENO,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut request, 1, milliseconds) > 0 }
}

fn file_error(error: &io::Error) -> FileError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FileError::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => FileError::ReadOnly,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => FileError::NoSpace,
        _ => FileError::Other,
    }
}

impl Platform for Host {
    fn cpus(&self) -> usize {
        self.cores.len()
    }

    fn park(&self, cpu: Cpu, deadline: Option<u64>) {
        let token = &self.cores[cpu].token;
        if token
            .0
            .compare_exchange(EMPTY, PARKED, Ordering::Acquire, Ordering::Acquire)
            .is_ok()
        {
            token.wait(PARKED, deadline);
        }
        // Takes the token if there is one; after a time-out or an early return there may be none.
        token.0.swap(EMPTY, Ordering::Acquire);
    }

    fn unpark(&self, cpu: Cpu) {
        let token = &self.cores[cpu].token;
        if token.0.swap(NOTIFIED, Ordering::Release) == PARKED {
            token.wake();
        }
    }

    fn now(&self) -> u64 {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: writes to the timespec only; the clock exists on every Linux.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
        time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
    }

    fn heartbeat(&self, cpu: Cpu, nanoseconds: u64) {
        let at = self.now().saturating_add(nanoseconds).min(NEVER - 1);
        self.cores[cpu].beat.store(at, Ordering::SeqCst);
        if at < self.alarm_at.load(Ordering::SeqCst) {
            self.alarm.0.fetch_add(1, Ordering::SeqCst);
            self.alarm.wake();
        }
    }

    fn map(&self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        assert!(align.is_power_of_two());
        if self.fixed.load(Ordering::Relaxed) != 0 {
            return self.map_fixed(bytes, align);
        }
        // The kernel chooses a page boundary; what is too much on either side is given back at once.
        let reserved = bytes.checked_add(align)?;
        // SAFETY: a new private mapping, at an address of the kernel's choice.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                reserved,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let before = start.align_offset(align);
        let after = reserved - before - bytes;
        // SAFETY: both pieces lie within the mapping just made, outside the part that is kept; nobody knows of them.
        let kept = unsafe {
            if before != 0 {
                libc::munmap(start, before);
            }
            let kept = start.cast::<u8>().add(before);
            // Large pages where they fit: marking goes from object to object, and would look up a page for nearly every one.
            if bytes >= LARGE_PAGES_FROM {
                libc::madvise(kept.cast(), bytes, libc::MADV_HUGEPAGE);
            }
            if after != 0 {
                libc::munmap(kept.add(bytes).cast(), after);
            }
            kept
        };
        // On x86-64 the kernel goes beyond 2^47 only for those who ask; elsewhere it may not know that limit.
        if kept.addr() + bytes > 1 << 47 {
            // SAFETY: made above, handed to nobody.
            unsafe { libc::munmap(kept.cast(), bytes) };
            return None;
        }
        NonNull::new(kept)
    }

    unsafe fn unmap(&self, start: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise: a mapping of `map`'s, no longer in use.
        unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let (fd, lock) = match stream {
            Stream::Output => (libc::STDOUT_FILENO, &self.output[0]),
            Stream::Error => (libc::STDERR_FILENO, &self.output[1]),
        };
        let _whole = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lines) = self.lines.get() {
            lines.printed(bytes);
        }
        while !bytes.is_empty() {
            // SAFETY: reads `bytes`.
            let written = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
            if written >= 0 {
                bytes = &bytes[written as usize..];
                continue;
            }
            match io::Error::last_os_error().kind() {
                io::ErrorKind::Interrupted => {}
                io::ErrorKind::WouldBlock => wait_writable(fd),
                // The descriptor is closed or its disk is full. A closed pipe never comes here: SIGPIPE ends the process.
                _ => return,
            }
        }
    }

    fn read(&self, buffer: &mut [u8]) -> Input {
        if buffer.is_empty() {
            return Input::Bytes(0);
        }
        // Two workers that both found the same line ready would leave the second waiting in read(2).
        let _one = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = || {
            self.wanted.0.store(1, Ordering::Release);
            self.wanted.wake();
            Input::Pending
        };
        if let Some(lines) = self.lines.get() {
            return match lines.take(buffer, &self.wanted.0) {
                None => {
                    self.wanted.wake();
                    Input::Pending
                }
                Some(0) => Input::End,
                Some(count) => Input::Bytes(count),
            };
        }
        if !poll_input(0) {
            return wait();
        }
        loop {
            // SAFETY: writes at most `buffer.len()` bytes to `buffer`.
            let got =
                unsafe { libc::read(libc::STDIN_FILENO, buffer.as_mut_ptr().cast(), buffer.len()) };
            if got > 0 {
                return Input::Bytes(got as usize);
            }
            if got == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Input::End;
            }
        }
    }

    fn read_file(&self, name: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
        let mut first_error = None;
        for path in self.candidates(name) {
            match fs::read(path) {
                Ok(bytes) => {
                    take(&bytes);
                    return Ok(());
                }
                Err(error) => _ = first_error.get_or_insert(file_error(&error)),
            }
        }
        Err(first_error.unwrap_or(FileError::NotFound))
    }

    fn write_file(&self, name: &str, bytes: &[u8]) -> Result<(), FileError> {
        // Names in the kernel's file system are flat, so a program there makes no folders: make them for it here.
        let folder = Path::new(name).parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(name, bytes))
            .map_err(|error| file_error(&error))
    }

    fn remove_file(&self, name: &str) -> Result<(), FileError> {
        fs::remove_file(name).map_err(|error| file_error(&error))
    }

    fn wall_clock(&self) -> Duration {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn entropy(&self) -> u64 {
        if self.seed.load(Ordering::Relaxed) != 0 {
            // SplitMix64 (Steele, Lea, Flood 2014).
            let step = 0x9e37_79b9_7f4a_7c15u64;
            let mut x = self.seed.fetch_add(step, Ordering::Relaxed);
            x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            return x ^ x >> 31;
        }
        let mut bits = [0u8; 8];
        // SAFETY: writes eight bytes. Requests of up to 256 bytes are answered whole (getrandom(2)).
        unsafe { libc::getrandom(bits.as_mut_ptr().cast(), bits.len(), 0) };
        u64::from_ne_bytes(bits)
    }
}

/// Waits until `fd`, which somebody made non-blocking, takes more.
fn wait_writable(fd: i32) {
    let mut request = libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut request, 1, -1) };
}

/// Starts the two threads that serve `host`: one for heartbeats, one for input. They sleep until asked for something.
pub fn start_services(host: &'static Host) -> io::Result<()> {
    let service = |name: &str| {
        thread::Builder::new()
            .name(name.into())
            .stack_size(SERVICE_STACK)
    };
    service("timer").spawn(|| host.keep_time())?;
    let stack = if host.lines.get().is_some() {
        EDITOR_STACK
    } else {
        SERVICE_STACK
    };
    service("input")
        .stack_size(stack)
        .spawn(|| host.watch_input())?;
    Ok(())
}

/// Ample for threads that call nothing but the system and the engine's [`Events`].
const SERVICE_STACK: usize = 128 << 10;
/// For one that edits lines.
const EDITOR_STACK: usize = 2 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn host(cpus: usize) -> &'static Host {
        Box::leak(Box::new(Host::new(cpus, PathBuf::from("."))))
    }

    #[test]
    fn mapped_memory_is_aligned_zeroed_and_low() {
        let host = host(1);
        for align in [64 << 10, 1 << 20, 64 << 20] {
            let bytes = 192 << 10;
            let start = host.map(bytes, align).expect("memory");
            assert_eq!(start.addr().get() % align, 0);
            assert!(start.addr().get() + bytes <= 1 << 47);
            // SAFETY: mapped above, used by nobody else, given back once.
            unsafe {
                let memory = std::slice::from_raw_parts_mut(start.as_ptr(), bytes);
                assert!(memory.iter().all(|&byte| byte == 0));
                memory.fill(0xff);
                host.unmap(start, bytes);
            }
        }
        assert_eq!(host.map(1 << 60, 64 << 10), None);
        assert_eq!(host.map(usize::MAX & !0xffff, 64 << 10), None);
    }

    #[test]
    fn a_token_lets_one_park_pass() {
        let host = host(2);
        host.unpark(1);
        host.unpark(1);
        host.park(1, None);
        // The token is gone: only the deadline, long past, ends this one.
        host.park(1, Some(0));
    }

    #[test]
    fn park_sleeps_until_its_deadline() {
        let host = host(1);
        let deadline = host.now() + 2_000_000;
        while host.now() < deadline {
            host.park(0, Some(deadline));
        }
        assert_eq!(host.cores[0].token.0.load(Ordering::Relaxed), EMPTY);
    }

    #[test]
    fn unpark_wakes_and_publishes() {
        let host = host(2);
        let turn = AtomicU64::new(0);
        thread::scope(|scope| {
            for cpu in 0..2u64 {
                let turn = &turn;
                scope.spawn(move || {
                    for round in 0..2000 {
                        while turn.load(Ordering::Relaxed) != 2 * round + cpu {
                            host.park(cpu as usize, None);
                        }
                        turn.store(2 * round + cpu + 1, Ordering::Relaxed);
                        host.unpark(1 - cpu as usize);
                    }
                });
            }
        });
        assert_eq!(turn.into_inner(), 4000);
    }

    struct Beats(Mutex<mpsc::Sender<Cpu>>);

    impl Events for Beats {
        fn beat(&self, cpu: Cpu) {
            self.0.lock().unwrap().send(cpu).unwrap();
        }
        fn input_arrived(&self) {}
    }

    #[test]
    fn every_heartbeat_comes_once_and_a_new_request_replaces_the_old() {
        let host = host(3);
        let (sender, beats) = mpsc::channel();
        host.attach(Box::leak(Box::new(Beats(Mutex::new(sender)))));
        start_services(host).unwrap();
        let a_day = 86_400_000_000_000;
        let patience = Duration::from_secs(60);
        host.heartbeat(0, a_day);
        for _ in 0..500 {
            host.heartbeat(2, a_day);
            host.heartbeat(2, 1000);
            assert_eq!(beats.recv_timeout(patience), Ok(2));
        }
        host.heartbeat(1, 0);
        assert_eq!(beats.recv_timeout(patience), Ok(1));
        assert_eq!(beats.try_recv(), Err(mpsc::TryRecvError::Empty));
    }

    #[test]
    fn files_are_looked_for_here_and_beside_the_program() {
        let folder = std::env::temp_dir().join(format!("vua-platform-{}", std::process::id()));
        fs::create_dir_all(folder.join("deep")).unwrap();
        fs::write(folder.join("deep/data"), "beside").unwrap();
        let host = Host::new(1, folder.clone());
        let mut found = Vec::new();
        assert_eq!(
            host.read_file("deep/data", &mut |bytes| found.extend_from_slice(bytes)),
            Ok(())
        );
        assert_eq!(found, b"beside");
        let here = folder.join("new/written").to_str().unwrap().to_owned();
        assert_eq!(host.write_file(&here, b"text"), Ok(()));
        assert_eq!(host.remove_file(&here), Ok(()));
        assert_eq!(host.remove_file(&here), Err(FileError::NotFound));
        assert_eq!(
            host.read_file(&here, &mut |_| panic!("it is gone")),
            Err(FileError::NotFound)
        );
        fs::remove_dir_all(folder).unwrap();
    }
}
