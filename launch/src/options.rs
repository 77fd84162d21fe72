//! The command line of `scripts/run` and `scripts/iso`.

use std::error::Error;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

const RUN_HELP: &str = "\
Boots Viridis in QEMU and runs a Vua program; leaves with the program's exit status.

usage: scripts/run [OPTION…] [PROGRAM.vua [ARG…]]
       Without a program: the console.

  --smp N               cores of the machine (default: those of this host)
  --mem SIZE            its memory: MiB, or with a suffix K, M or G (default: 1G)
  --accel auto|kvm|tcg  how QEMU runs it (default: KVM where a test boot works, else TCG)
  --cpu MODEL           the processor, as QEMU names it (default: max)
  --iso                 boot an ISO image through the official Limine; LIMINE_DIR names its
                        binary release, or the one last given to scripts/iso is used
  --firmware bios|uefi  what starts the ISO image (default: bios; OVMF names UEFI's image file)
  --usb                 the ISO image is on a USB stick, not on a disc
  --timeout S           stop after S seconds, with status 124
  --grace S             after Ctrl-C, how long the program has to end (default: 2)
  --stats               print per-core counters as JSON on standard error at the end
  --out DIR             put the files that the program wrote into DIR
  --verbose             show the kernel's whole log and QEMU's command line
  --append WORDS        more words for the kernel's command line
  --qemu WORDS          more arguments for QEMU
  --console-bus BUS     put the program's console on this PCI bus, a bridge among those arguments
  --gdb                 wait for GDB before the first instruction, and say how to attach it
  --archive FILE        use this boot archive as it is (\"none\": boot without one)

Exit status: the program's own (0 to 63); 1 an uncaught error; 2 it does not compile or is not found;
101 the kernel panicked or the machine died; 124 timeout; 130 Ctrl-C.";

const ISO_HELP: &str = "\
Makes an ISO image that boots Viridis on PCs and in QEMU, through BIOS and UEFI.

usage: scripts/iso --limine DIR [OPTION…] [PROGRAM.vua [ARG…]]
       Without a program the image boots into the console.

  --limine DIR    a binary release of the Limine boot loader, version 8 or later
  --output FILE   where to put the image (default: target/viridis.iso)
  --append WORDS  words for the kernel's command line";

/// What the command line asks for.
pub enum Command {
    Run(Run),
    Iso(Iso),
    /// Print this text.
    Help(&'static str),
}

/// One boot.
pub struct Run {
    pub cpus: u32,
    pub memory: Memory,
    pub accelerator: Wanted,
    /// QEMU's name of the processor.
    pub cpu: String,
    pub iso: bool,
    /// The ISO image is on a USB stick.
    pub usb: bool,
    pub firmware: Firmware,
    /// Wait for a debugger.
    pub gdb: bool,
    /// QEMU's name of the PCI bus that the console is on; `None`: device 0x10 of the root bus.
    pub console_bus: Option<String>,
    /// More arguments for QEMU.
    pub qemu: Vec<String>,
    /// The boot archive to use instead of one that is packed here.
    pub boot_archive: Option<BootArchive>,
    pub timeout: Option<Duration>,
    /// How long a cancelled program has to end before QEMU is killed.
    pub grace: Duration,
    pub stats: bool,
    pub out: Option<PathBuf>,
    pub verbose: bool,
    /// Words for the kernel's command line.
    pub append: Vec<String>,
    pub program: Option<PathBuf>,
    pub arguments: Vec<OsString>,
}

/// One ISO image.
pub struct Iso {
    pub limine: Option<PathBuf>,
    pub output: Option<PathBuf>,
    pub append: Vec<String>,
    pub program: Option<PathBuf>,
    pub arguments: Vec<OsString>,
}

/// The accelerator that the person asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Auto,
    Kvm,
    Tcg,
}

/// A boot archive from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootArchive {
    /// None: the kernel gets no module.
    Absent,
    /// This file, as it is.
    File(PathBuf),
}

/// What starts an ISO image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// SeaBIOS, which QEMU brings along.
    Bios,
    /// OVMF.
    Uefi,
}

/// The size of the machine's memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    bytes: u64,
}

impl Memory {
    /// A size in MiB.
    pub const fn mebibytes(count: u64) -> Self {
        Self { bytes: count << 20 }
    }

    /// Parses QEMU's notation: a number of MiB, or a number with a suffix `K`, `M` or `G`.
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("--mem {text}: a size is a number of MiB, or a number with a suffix K, M or G")
        };
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
            Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
            Some(b'g' | b'G') => (&text[..text.len() - 1], 30),
            _ => (text, 20),
        };
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let number: u64 = digits.parse().map_err(|_| wrong())?;
        let bytes = number
            .checked_mul(1 << shift)
            .filter(|&bytes| bytes < 1 << 52)
            .ok_or_else(wrong)?;
        if bytes < 16 << 20 {
            return Err(format!("--mem {text}: no machine boots in less than 16M"));
        }
        Ok(Self { bytes })
    }

    /// The argument of QEMU's `-m`.
    pub fn argument(&self) -> String {
        format!("{}K", self.bytes >> 10)
    }

    /// Refuses a boot image of `size` bytes that would leave the machine less than half of its memory.
    pub fn check_image(&self, size: u64) -> Result<(), String> {
        if size <= self.bytes / 2 {
            return Ok(());
        }
        Err(format!(
            "the boot image takes {} MiB of the machine's {} MiB: give it more with --mem",
            size.div_ceil(1 << 20),
            self.bytes >> 20
        ))
    }
}

/// Parses the arguments; the first, after the executable's own name, says which command they belong to.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Box<dyn Error>> {
    let mut parser = lexopt::Parser::from_iter(arguments);
    match parser.next()? {
        Some(Value(name)) if name == "run" => parse_run(parser),
        Some(Value(name)) if name == "iso" => parse_iso(parser),
        _ => Err("usage: launch run|iso …; people type scripts/run and scripts/iso".into()),
    }
}

fn parse_run(mut parser: lexopt::Parser) -> Result<Command, Box<dyn Error>> {
    let mut run = Run {
        cpus: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        memory: Memory::mebibytes(1024),
        accelerator: Wanted::Auto,
        cpu: "max".to_owned(),
        iso: false,
        usb: false,
        firmware: Firmware::Bios,
        gdb: false,
        console_bus: None,
        qemu: Vec::new(),
        boot_archive: None,
        timeout: None,
        grace: Duration::from_secs(2),
        stats: false,
        out: None,
        verbose: false,
        append: Vec::new(),
        program: None,
        arguments: Vec::new(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("smp") => run.cpus = parse_cpus(&parser.value()?.string()?)?,
            Long("mem") => run.memory = Memory::parse(&parser.value()?.string()?)?,
            Long("accel") => {
                run.accelerator = match parser.value()?.string()?.as_str() {
                    "auto" => Wanted::Auto,
                    "kvm" => Wanted::Kvm,
                    "tcg" => Wanted::Tcg,
                    other => return Err(format!("--accel {other}: it is auto, kvm or tcg").into()),
                }
            }
            Long("cpu") => run.cpu = parser.value()?.string()?,
            Long("iso") => run.iso = true,
            Long("usb") => run.usb = true,
            Long("firmware") => {
                run.firmware = match parser.value()?.string()?.as_str() {
                    "bios" => Firmware::Bios,
                    "uefi" => Firmware::Uefi,
                    other => return Err(format!("--firmware {other}: it is bios or uefi").into()),
                }
            }
            Long("gdb") => run.gdb = true,
            Long("console-bus") => run.console_bus = Some(parser.value()?.string()?),
            Long("qemu") => append_words(&mut run.qemu, &parser.value()?.string()?),
            Long("archive") => {
                let file = parser.value()?;
                run.boot_archive = Some(if file == "none" {
                    BootArchive::Absent
                } else {
                    BootArchive::File(file.into())
                });
            }
            Long("timeout") => {
                run.timeout = Some(parse_seconds("--timeout", &parser.value()?.string()?)?)
            }
            Long("grace") => run.grace = parse_seconds("--grace", &parser.value()?.string()?)?,
            Long("stats") => run.stats = true,
            Long("out") => run.out = Some(parser.value()?.into()),
            Short('v') | Long("verbose") => run.verbose = true,
            Long("append") => append_words(&mut run.append, &parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(Command::Help(RUN_HELP)),
            Value(program) => {
                run.program = Some(program.into());
                run.arguments = parser.raw_args()?.collect();
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if !run.iso && (run.usb || run.firmware == Firmware::Uefi) {
        return Err(
            "--usb and --firmware uefi are for --iso: the direct loader needs neither".into(),
        );
    }
    Ok(Command::Run(run))
}

fn parse_iso(mut parser: lexopt::Parser) -> Result<Command, Box<dyn Error>> {
    let mut iso = Iso {
        limine: None,
        output: None,
        append: Vec::new(),
        program: None,
        arguments: Vec::new(),
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("limine") => iso.limine = Some(parser.value()?.into()),
            Short('o') | Long("output") => iso.output = Some(parser.value()?.into()),
            Long("append") => append_words(&mut iso.append, &parser.value()?.string()?),
            Short('h') | Long("help") => return Ok(Command::Help(ISO_HELP)),
            Value(program) => {
                iso.program = Some(program.into());
                iso.arguments = parser.raw_args()?.collect();
            }
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Command::Iso(iso))
}

fn append_words(words: &mut Vec<String>, text: &str) {
    words.extend(text.split_whitespace().map(str::to_owned));
}

fn parse_cpus(text: &str) -> Result<u32, String> {
    // 288: the most that QEMU's q35 takes.
    text.parse()
        .ok()
        .filter(|cpus| (1..=288).contains(cpus))
        .ok_or_else(|| format!("--smp {text}: the number of cores is 1 to 288"))
}

fn parse_seconds(option: &str, text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|&seconds| seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("{option} {text}: give a positive number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str]) -> Result<Run, String> {
        let all = ["launch", "run"]
            .iter()
            .chain(arguments)
            .map(OsString::from);
        match parse(all).map_err(|error| error.to_string())? {
            Command::Run(run) => Ok(run),
            _ => Err("not a run".to_owned()),
        }
    }

    #[test]
    fn what_follows_the_program_belongs_to_it() {
        let run = run(&["--smp", "3", "a/b.vua", "--smp", "-x", "--", ""]).unwrap();
        assert_eq!(run.cpus, 3);
        assert_eq!(run.program.unwrap(), PathBuf::from("a/b.vua"));
        assert_eq!(run.arguments, ["--smp", "-x", "--", ""]);
    }

    #[test]
    fn a_program_may_be_named_after_two_dashes() {
        let run = run(&["--", "--odd.vua", "x"]).unwrap();
        assert_eq!(run.program.unwrap(), PathBuf::from("--odd.vua"));
        assert_eq!(run.arguments, ["x"]);
    }

    #[test]
    fn sizes() {
        for (text, argument) in [
            ("64", "65536K"),
            ("64M", "65536K"),
            ("2G", "2097152K"),
            ("65536k", "65536K"),
        ] {
            assert_eq!(Memory::parse(text).unwrap().argument(), argument);
        }
        for text in [
            "",
            "M",
            "12x",
            "-1",
            "1.5G",
            "15M",
            "99999999999G",
            "18446744073709551616",
        ] {
            assert!(Memory::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_image_may_take_half_of_the_memory() {
        let memory = Memory::parse("64M").unwrap();
        assert!(memory.check_image(32 << 20).is_ok());
        assert!(
            memory
                .check_image((32 << 20) + 1)
                .unwrap_err()
                .contains("--mem")
        );
    }

    #[test]
    fn wrong_values_are_refused() {
        for arguments in [
            &["--smp", "0"][..],
            &["--smp", "289"],
            &["--smp", "two"],
            &["--timeout", "0"],
            &["--timeout", "-1"],
            &["--timeout", "nan"],
            &["--timeout", "1e400"],
            &["--accel", "hvf"],
            &["--mem"],
            &["--firmware", "uefi"],
            &["--iso", "--firmware", "coreboot"],
            &["--usb"],
            &["--nonsense"],
        ] {
            assert!(run(arguments).is_err(), "{arguments:?}");
        }
    }

    #[test]
    fn words_for_the_kernel_are_split() {
        assert_eq!(
            run(&["--append", "a=1  b", "--append=c"]).unwrap().append,
            ["a=1", "b", "c"]
        );
    }
}
