//! A QEMU process as the machine: its arguments, its serial ports, and how it ends.
//!
//! | device | on this side |
//! | --- | --- |
//! | virtio port, PCI device 0x10 | QEMU's standard output is the program's standard output, to the byte; its standard input carries ours, escaped (see [`crate::escape`]) |
//! | COM1 | nothing: a kernel on a machine without that virtio port would use it instead |
//! | COM2 | a socket: the kernel's log and the program's standard error, copied to standard error; towards the machine, a cancellation that need not wait behind input |
//! | virtio port, PCI device 0x12 | a file: what the program wrote, as one ustar stream; only there when asked for |
//!
//! A serial port takes a byte at each access, which costs microseconds, gives one in a hundred, and loses what comes before
//! the kernel sets it up; the virtio ports take and give many at once, and QEMU holds back the guest while their receivers do
//! not keep up.
//!
//! The guest ends by writing its status `s` to the debug exit device at port 0xf4; QEMU then exits with `s << 1 | 1`
//! (QEMU, `hw/misc/debugexit.c`). Any other end means that the machine died.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::accelerator::Accelerator;
use crate::options::{Memory, Run};
use crate::{escape, say, status};

/// How many of the log's last lines are repeated when the machine died.
const LAST_LINES: usize = 10;

/// What the machine boots from.
pub enum Boot {
    /// The direct loader, with a boot image and the kernel's command line.
    Direct {
        loader: PathBuf,
        image: PathBuf,
        append: String,
    },
    /// An ISO image.
    Iso {
        image: PathBuf,
        /// On a USB stick, not in the CD-ROM drive.
        usb: bool,
        /// The flash memory with UEFI's code; `None`: QEMU's own BIOS.
        uefi: Option<PathBuf>,
    },
}

/// One machine, before it is started.
pub struct Machine {
    pub qemu: OsString,
    pub accelerator: Accelerator,
    pub cpus: u32,
    /// QEMU's name of the processor.
    pub cpu: String,
    pub memory: Memory,
    pub boot: Boot,
    /// Where the stream of written files goes; `None`: the machine has no port for it.
    pub files: Option<PathBuf>,
    /// Wait for a debugger at [`GDB`].
    pub gdb: bool,
    /// More arguments.
    pub more: Vec<String>,
}

/// Where QEMU listens for a debugger.
pub const GDB: &str = "localhost:1234";

/// How a run ended.
pub struct Ended {
    /// What this process should exit with.
    pub status: u8,
    /// The machine ended by itself with a status, so what it sent is whole.
    pub clean: bool,
}

impl Machine {
    /// QEMU with every argument except the first two serial ports.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.qemu);
        command
            .args([
                "-nodefaults",
                "-no-user-config",
                "-no-reboot",
                "-display",
                "none",
                "-vga",
                "std",
            ])
            .args(["-M", "q35", "-cpu", &self.cpu])
            .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            .args(["-accel", self.accelerator.argument()])
            .args(["-smp", &self.cpus.to_string()])
            .args(["-m", &self.memory.argument()]);
        match &self.boot {
            Boot::Direct {
                loader,
                image,
                append,
            } => {
                command
                    .arg("-kernel")
                    .arg(loader)
                    .arg("-initrd")
                    .arg(image)
                    .arg("-append")
                    .arg(append);
            }
            Boot::Iso { image, usb, uefi } => {
                if let Some(code) = uefi {
                    command
                        .arg("-drive")
                        .arg(file_option("if=pflash,format=raw,readonly=on,file=", code));
                }
                if *usb {
                    command
                        .arg("-drive")
                        .arg(file_option(
                            "if=none,id=stick,format=raw,readonly=on,file=",
                            image,
                        ))
                        .args(["-device", "qemu-xhci"])
                        .args(["-device", "usb-storage,drive=stick,bootindex=0"]);
                } else {
                    command.arg("-cdrom").arg(image).args(["-boot", "d"]);
                }
            }
        }
        if let Some(path) = &self.files {
            command.arg("-chardev").arg(file_backend("files", path));
            add_port(&mut command, "files", "addr=0x12,vectors=0");
        }
        // Identifiers above 254 take x2APIC mode, and interrupts from devices to them a remapping unit.
        if self.cpus > 255 {
            command.args(["-machine", "kernel-irqchip=split"]);
            command.args(["-device", "intel-iommu,intremap=on,eim=on"]);
        }
        if self.gdb {
            command.args(["-S", "-gdb", &format!("tcp:{GDB}")]);
        }
        command.args(&self.more);
        command
    }
}

/// A virtio port of the character device `backend`. `place` says where the kernel looks for the device, and further properties;
/// without interrupts (`vectors=0`) it only sends.
fn add_port(command: &mut Command, backend: &str, place: &str) {
    // Port 0 is reserved for a console, which drops what its receiver does not take at once.
    command.arg("-device").arg(format!(
        "virtio-serial-pci,id={backend}-bus,max_ports=2,{place}"
    ));
    command.arg("-device").arg(format!(
        "virtserialport,bus={backend}-bus.0,nr=1,chardev={backend}"
    ));
}

/// A character device that writes to a file.
fn file_backend(id: &str, path: &Path) -> OsString {
    file_option(&format!("file,id={id},path="), path)
}

/// An option of QEMU's that ends in a path. A comma in a value is written twice in QEMU's options.
fn file_option(start: &str, path: &Path) -> OsString {
    let mut bytes = start.as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

/// How a trial boot ended.
pub enum Trial {
    /// The machine gave this status.
    Status(u8),
    /// QEMU refused to start it, or it died; with QEMU's own words.
    Died(String),
    /// It did not end in time.
    Slow,
}

/// Boots `machine` with nothing attached, for at most `limit`.
pub fn try_boot(machine: &Machine, limit: Duration) -> io::Result<Trial> {
    let mut command = machine.command();
    command.args(["-serial", "null", "-serial", "null"]);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = start(&mut command)?;
    let (send, receive) = mpsc::channel();
    let complaint = Tail::new();
    let reader = child.stderr.take().map(|pipe| {
        let complaint = complaint.clone();
        thread::spawn(move || copy(pipe, |bytes| complaint.push(bytes)))
    });
    watch_exit(&child, send);
    let in_time = receive.recv_timeout(limit).is_ok();
    if !in_time {
        child.kill()?;
    }
    let exit = child.wait()?;
    if let Some(reader) = reader {
        let _ = reader.join();
    }
    if !in_time {
        return Ok(Trial::Slow);
    }
    Ok(match guest_status(exit) {
        Some(status) if !(status == 0 && complaint.has_error()) => Trial::Status(status),
        _ => Trial::Died(complaint.lines().pop().unwrap_or_else(|| exit.to_string())),
    })
}

enum Event {
    Exited,
    Signal,
    OutputClosed,
}

/// Why this process ends the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Cancelled,
    TimedOut,
    OutputClosed,
}

/// Runs `machine` until it ends, with this process's standard streams attached.
///
/// SIGINT, SIGTERM and SIGHUP cancel the program, which then has the grace time to end; a second one does not
/// wait.
pub fn run(machine: &Machine, run: &Run) -> io::Result<Ended> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let (mut log, log_end) = inherited_socket()?;

    let mut command = machine.command();
    command.args(["-chardev", "stdio,id=console,signal=off", "-serial", "null"]);
    let place = match &run.console_bus {
        Some(bus) => format!("bus={bus}"),
        None => "addr=0x10".to_owned(),
    };
    add_port(&mut command, "console", &place);
    command.arg("-chardev");
    command.arg(format!("socket,id=log,fd={}", log_end.as_raw_fd()));
    command.args(["-serial", "chardev:log"]);
    if run.verbose {
        say(&format!("{command:?}"));
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let started = Instant::now();
    let mut child = start(&mut command).map_err(|error| explain_missing(&machine.qemu, error))?;
    drop(log_end);
    let pid = Pid::from_child(&child);

    let (send, receive) = mpsc::channel();
    {
        let send = send.clone();
        thread::spawn(move || {
            for _ in signals.forever() {
                if send.send(Event::Signal).is_err() {
                    return;
                }
            }
        });
    }
    let input = Arc::new(Mutex::new(
        child.stdin.take().expect("standard input is piped"),
    ));
    // One page: whatever waits in this pipe stands before the end of the input, and before a cancellation.
    let _ = rustix::pipe::fcntl_setpipe_size(&*lock(&input), 4096);
    {
        let input = input.clone();
        thread::spawn(move || pump_input(&input));
    }
    let (output, said, complaint) = (Tail::new(), Tail::new(), Tail::new());
    let pumps = [
        pump_output(
            child.stdout.take().expect("standard output is piped"),
            output.clone(),
            send.clone(),
        ),
        pump_error(log.try_clone()?, said.clone()),
        pump_error(
            child.stderr.take().expect("standard error is piped"),
            complaint.clone(),
        ),
    ];
    watch_exit(&child, send);

    let mut deadline = run.timeout.map(|limit| started + limit);
    let mut ending = None;
    loop {
        let event = match deadline {
            Some(deadline) => {
                receive.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => receive.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let kill = match event {
            Ok(Event::Exited) | Err(RecvTimeoutError::Disconnected) => break,
            Ok(Event::Signal) if ending.is_none() => {
                ending = Some(Ending::Cancelled);
                deadline = Some(Instant::now() + run.grace);
                // Nothing else goes this way, so there is room.
                let _ = log.write_all(escape::CANCEL);
                // A kernel that is about to set that port up loses what it holds; this one keeps it. Not on this thread: the
                // machine may have stopped reading input, and then this waits until it is killed.
                let input = input.clone();
                thread::spawn(move || lock(&input).write_all(escape::CANCEL));
                false
            }
            Ok(Event::Signal) => true,
            Ok(Event::OutputClosed) => {
                ending = ending.or(Some(Ending::OutputClosed));
                true
            }
            Err(RecvTimeoutError::Timeout) => {
                ending = ending.or(Some(Ending::TimedOut));
                true
            }
        };
        if kill {
            deadline = None;
            // The process is not reaped before the end of this loop, so its number is still its own.
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    let exit = child.wait()?;
    for pump in pumps {
        let _ = pump.join();
    }
    Ok(judge(
        exit,
        ending,
        run.timeout,
        [&output, &said, &complaint],
    ))
}

fn judge(
    exit: ExitStatus,
    ending: Option<Ending>,
    limit: Option<Duration>,
    tails: [&Tail; 3],
) -> Ended {
    let [output, log, complaint] = tails;
    let guest = guest_status(exit);
    let status = match (ending, guest) {
        (Some(Ending::Cancelled), _) => status::CANCELLED,
        (Some(Ending::OutputClosed), _) => status::OUTPUT_CLOSED,
        (None, Some(CANCELLED_WITHIN)) => status::CANCELLED,
        // The machine may have ended at the very moment when its time was up.
        (Some(Ending::TimedOut) | None, Some(0)) if never_started([output, log], complaint) => {
            say("QEMU could not start the machine");
            status::MACHINE_DIED
        }
        (Some(Ending::TimedOut) | None, Some(status)) => status,
        (Some(Ending::TimedOut), None) => {
            say(&format!(
                "stopped after {} s, the limit of --timeout",
                limit.unwrap_or_default().as_secs_f64()
            ));
            status::TIMED_OUT
        }
        (None, None) => {
            say(&format!(
                "the machine died without an exit status (QEMU: {exit})"
            ));
            let lines = log.lines();
            if !lines.is_empty() {
                say("the last lines of its log:");
                for line in lines {
                    say(&format!("  {line}"));
                }
            }
            status::MACHINE_DIED
        }
    };
    Ended {
        status,
        clean: guest.is_some(),
    }
}

/// QEMU exits with 1 when it cannot start, as it does for a guest's status 0.
fn never_started(ports: [&Tail; 2], complaint: &Tail) -> bool {
    complaint.has_error() && ports.iter().all(|port| port.is_empty())
}

/// What the exit device's seven bits leave of the status of a program that was cancelled at the machine's own keyboard. No program has this
/// status by itself.
const CANCELLED_WITHIN: u8 = 127;

/// The status that the guest wrote to the debug exit device.
fn guest_status(exit: ExitStatus) -> Option<u8> {
    let code = u8::try_from(exit.code()?).ok()?;
    (code & 1 == 1).then_some(code >> 1)
}

/// Starts QEMU so that it neither outlives this process nor hears the terminal's signals, which are this
/// process's to handle.
///
/// Must be called on the main thread: the kernel sends the signal when the *thread* that started the child ends.
fn start(command: &mut Command) -> io::Result<Child> {
    let parent = rustix::process::getpid();
    command.process_group(0);
    // SAFETY: between fork and exec only system calls are made: prctl and getppid. Nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // Had the parent died before, no signal would come.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(
                    rustix::io::Errno::SRCH.raw_os_error(),
                ))
            }
        });
    }
    command.spawn()
}

/// Says what to do about an emulator that is not installed.
pub fn explain_missing(qemu: &OsStr, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return io::Error::new(
            error.kind(),
            format!(
                "{} is not there: scripts/setup installs it",
                Path::new(qemu).display()
            ),
        );
    }
    error
}

/// A connected pair of sockets: this process's end, and one that a child inherits under its number. No other process
/// may be started before that child.
fn inherited_socket() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
    Ok((ours, theirs))
}

/// Sends [`Event::Exited`] when the child has ended, and leaves it to be reaped.
fn watch_exit(child: &Child, send: Sender<Event>) {
    let pid = Pid::from_child(child);
    thread::spawn(move || {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = rustix::process::waitid(WaitId::Pid(pid), options)
        {
        }
        let _ = send.send(Event::Exited);
    });
}

/// Copies standard input to the machine, until one of them ends.
fn pump_input(machine: &Mutex<ChildStdin>) {
    let mut coded = Vec::new();
    let mut send = |bytes: &[u8]| {
        coded.clear();
        escape::encode(bytes, &mut coded);
        if bytes.is_empty() {
            coded.extend(escape::END);
        }
        lock(machine).write_all(&coded)
    };
    let Ok(input) = io::stdin().as_fd().try_clone_to_owned() else {
        let _ = send(&[]);
        return;
    };
    let mut buffer = [0; 4096];
    loop {
        match rustix::io::read(&input, &mut buffer) {
            Ok(count) => {
                if send(&buffer[..count]).is_err() || count == 0 {
                    return;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_for(&input, rustix::event::PollFlags::IN),
            Err(_) => {
                let _ = send(&[]);
                return;
            }
        }
    }
}

fn pump_output(
    machine: impl Read + Send + 'static,
    tail: Tail,
    send: Sender<Event>,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let output = io::stdout().as_fd().try_clone_to_owned();
        let mut open = true;
        copy(machine, |bytes| {
            tail.push(bytes);
            if open && !output.as_ref().is_ok_and(|output| write_all(output, bytes)) {
                open = false;
                let _ = send.send(Event::OutputClosed);
            }
        });
    })
}

fn pump_error(machine: impl Read + Send + 'static, tail: Tail) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let error = io::stderr().as_fd().try_clone_to_owned();
        copy(machine, |bytes| {
            tail.push(bytes);
            if let Ok(error) = &error {
                write_all(error, bytes);
            }
        });
    })
}

/// Reads until the end and hands over each piece as it comes.
fn copy(mut from: impl Read, mut to: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => to(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

/// Writes everything, even where somebody made the file non-blocking (it may be shared). Returns whether it could.
fn write_all(to: &OwnedFd, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => wait_for(to, rustix::event::PollFlags::OUT),
            Err(_) => return false,
        }
    }
    true
}

fn wait_for(file: &OwnedFd, what: rustix::event::PollFlags) {
    let _ = rustix::event::poll(&mut [rustix::event::PollFd::new(file, what)], None);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last bytes that came over a channel, shared between the thread that reads it and the one that judges.
#[derive(Clone)]
struct Tail(Arc<Mutex<Vec<u8>>>);

impl Tail {
    /// Enough for [`LAST_LINES`] long lines.
    const BYTES: usize = 4096;

    fn new() -> Self {
        Self(Arc::default())
    }

    fn push(&self, bytes: &[u8]) {
        let mut tail = lock(&self.0);
        tail.extend(&bytes[bytes.len().saturating_sub(Self::BYTES)..]);
        let excess = tail.len().saturating_sub(Self::BYTES);
        tail.drain(..excess);
    }

    fn is_empty(&self) -> bool {
        lock(&self.0).is_empty()
    }

    fn lines(&self) -> Vec<String> {
        let tail = lock(&self.0);
        let text = String::from_utf8_lossy(&tail);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].to_vec()
    }

    /// Whether QEMU reported something other than a warning.
    fn has_error(&self) -> bool {
        self.lines()
            .iter()
            .any(|line| !line.is_empty() && !line.contains("warning:"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(
            file_backend("x", Path::new("/a,b/c")),
            "file,id=x,path=/a,,b/c"
        );
    }

    #[test]
    fn a_tail_keeps_the_last_lines() {
        let tail = Tail::new();
        assert!(tail.is_empty() && tail.lines().is_empty());
        for number in 0..5000 {
            tail.push(format!("{number}\r\n").as_bytes());
        }
        tail.push(b"unfinished");
        let expected: Vec<_> = (4991..5000)
            .map(|number| number.to_string())
            .chain(["unfinished".to_owned()])
            .collect();
        assert_eq!(tail.lines(), expected);
        tail.push(&[b'x'; 3 * Tail::BYTES]);
        assert_eq!(tail.lines(), ["x".repeat(Tail::BYTES)]);
    }

    #[test]
    fn only_odd_codes_are_statuses() {
        for (code, status) in [
            (1, Some(0)),
            (3, Some(1)),
            (203, Some(101)),
            (0, None),
            (2, None),
            (254, None),
        ] {
            assert_eq!(guest_status(ExitStatus::from_raw(code << 8)), status);
        }
        assert_eq!(guest_status(ExitStatus::from_raw(9)), None);
    }
}
