//! The words on the kernel's command line.

use crate::power::End;

/// A fault to commit on purpose once the machine is up, so that its report can be checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Read through a null pointer.
    Null,
    /// Write to the kernel's own code.
    TextWrite,
    /// Execute data.
    NoExecute,
    /// Overflow the stack.
    Stack,
    /// Divide by zero.
    Divide,
    /// Execute an undefined instruction.
    Opcode,
    /// Call `panic!`.
    Panic,
    /// Fault while a fault is being reported.
    Nested,
    /// A fault that cannot be delivered.
    Double,
    /// A non-maskable interrupt.
    Nmi,
    /// Run for ever with interrupts off.
    Stuck,
    /// Panic on every core at the same time.
    Every,
}

/// What the command line asks for. Unknown words are for others (the loader, the launcher) and are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// `quiet`: log only warnings and errors.
    pub quiet: bool,
    /// `stats`: print counters at the end.
    pub stats: bool,
    /// `files`: send written files over the third serial port at the end.
    pub files: bool,
    /// `selftest`: check the machine instead of running a program.
    pub selftest: bool,
    /// `fault=NAME`.
    pub fault: Option<Fault>,
    /// `fault-core=N`: the core that commits the fault (0 unless given).
    pub fault_core: usize,
    /// `watchdog=SECONDS`: the watchdog's limit, 0 for no watchdog.
    pub watchdog: Option<u32>,
    /// `end=off|reset|halt`: how to end the machine, instead of through the exit device.
    pub end: Option<End>,
    /// `settle`: begin the program only when all other cores wait for tasks, and log when that was.
    pub settle: bool,
    /// `sweep=N,N,…`: run the program on so many of the cores, one number after another; zeros follow the last.
    pub sweep: [u16; 32],
    /// `repeats=N`: how often the sweep is run.
    pub repeats: Option<u32>,
    /// `simulate=P`: run the program on so many virtual cores, which take turns on core 0.
    pub simulate: Option<u32>,
    /// `loader_tsc=HEX`: the time-stamp counter when the loader started.
    pub loader_tsc: Option<u64>,
}

impl CommandLine {
    /// Reads a command line: words between blanks. Of a word that is given twice the last counts.
    pub fn parse(text: &str) -> Self {
        let mut line = Self::default();
        for word in text.split_ascii_whitespace() {
            match word.split_once('=') {
                None => match word {
                    "quiet" => line.quiet = true,
                    "stats" => line.stats = true,
                    "files" => line.files = true,
                    "selftest" => line.selftest = true,
                    "settle" => line.settle = true,
                    _ => {}
                },
                Some(("fault", name)) => {
                    line.fault = match name {
                        "null" => Some(Fault::Null),
                        "text-write" => Some(Fault::TextWrite),
                        "nx" => Some(Fault::NoExecute),
                        "stack" => Some(Fault::Stack),
                        "divide" => Some(Fault::Divide),
                        "opcode" => Some(Fault::Opcode),
                        "panic" => Some(Fault::Panic),
                        "nested" => Some(Fault::Nested),
                        "double" => Some(Fault::Double),
                        "nmi" => Some(Fault::Nmi),
                        "stuck" => Some(Fault::Stuck),
                        "every" => Some(Fault::Every),
                        _ => line.fault,
                    }
                }
                Some(("fault-core", number)) => {
                    line.fault_core = number.parse().unwrap_or(line.fault_core)
                }
                Some(("watchdog", number)) => line.watchdog = number.parse().ok().or(line.watchdog),
                Some(("sweep", list)) => {
                    line.sweep = [0; 32];
                    let counts = list.split(',').filter_map(|count| count.parse().ok());
                    let counts = counts.filter(|&count: &u16| count > 0);
                    line.sweep
                        .iter_mut()
                        .zip(counts)
                        .for_each(|(place, count)| *place = count);
                }
                Some(("repeats", number)) => line.repeats = number.parse().ok().or(line.repeats),
                Some(("simulate", number)) => line.simulate = number.parse().ok().or(line.simulate),
                Some(("end", how)) => {
                    line.end = match how {
                        "off" => Some(End::Off),
                        "reset" => Some(End::Reset),
                        "halt" => Some(End::Halt),
                        _ => line.end,
                    }
                }
                Some(("loader_tsc", number)) => {
                    let digits = number.strip_prefix("0x").unwrap_or(number);
                    line.loader_tsc = u64::from_str_radix(digits, 16).ok();
                }
                Some(_) => {}
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_words() {
        assert_eq!(CommandLine::parse(""), CommandLine::default());
        let line = CommandLine::parse(
            "  quiet stats\tfiles loader_tsc=1f fault=text-write fault-core=3 colour=blue selftest watchdog=3 settle end=off sweep=1,x,0,4 repeats=3 simulate=64",
        );
        assert_eq!(
            line,
            CommandLine {
                quiet: true,
                stats: true,
                files: true,
                selftest: true,
                fault: Some(Fault::TextWrite),
                fault_core: 3,
                watchdog: Some(3),
                settle: true,
                end: Some(End::Off),
                sweep: core::array::from_fn(|index| [1, 4].get(index).copied().unwrap_or(0)),
                repeats: Some(3),
                simulate: Some(64),
                loader_tsc: Some(0x1f),
            }
        );
    }

    #[test]
    fn passes_over_what_it_does_not_know() {
        assert_eq!(
            CommandLine::parse("files=no fault=unheard-of loader_tsc=xyz fault-core=-1"),
            CommandLine::default()
        );
        assert_eq!(CommandLine::parse("loader_tsc=0x10").loader_tsc, Some(16));
    }
}
