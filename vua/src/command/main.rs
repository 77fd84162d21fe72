//! `vua`: the engine of Viridis as a command of Linux, a thread standing for each core.

mod interrupt;
mod memory;
mod options;
mod platform;
mod prompt;
mod reports;

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use smp::platform::Platform;

use interrupt::Interrupt;
use options::{Cores, Request};
use platform::Host;
use reports::Reports;
use vua::bytecode::Function;
use vua::engine::{Engine, Options};
use vua::turns::machine::VirtualMachine;
use vua::turns::{Order, Report};

/// The exit status of a program that does not compile, is not found, or of a command line that is not understood.
const NOT_RUN: i32 = 2;
/// Decides what is random in a simulation: the same each time.
const SIMULATION_SEED: u64 = 1;
/// What a worker's machine stack holds is bounded, whatever a program does: as much as a core has in the kernel.
const WORKER_STACK: usize = 512 << 10;

impl platform::Events for Engine {
    fn beat(&self, cpu: usize) {
        Engine::beat(self, cpu);
    }

    fn input_arrived(&self) {
        Engine::input_arrived(self);
    }
}

fn main() {
    interrupt::end_on_closed_pipe();
    let status = match options::parse(std::env::args_os().skip(1)) {
        Ok(Request::Run {
            file,
            arguments,
            workers,
            stats,
            cores,
            race,
            random_seed,
            gc_stress,
            failing_allocations,
            memory,
            reports,
        }) => {
            let options = Options {
                gc_stress,
                failing_allocations,
                memory: memory.or_else(memory::default_limit),
                observe: reports.observe(),
                ..Options::default()
            };
            let machine = Machine {
                workers,
                cores,
                race,
                random_seed,
            };
            run(&file, arguments, machine, stats, options, &reports)
        }
        Ok(Request::Prompt) => {
            if prompt::is_terminal() {
                talk()
            } else {
                run_input()
            }
        }
        Ok(Request::Check(file)) => check(&file),
        Ok(Request::Disassemble(file)) => disassemble(&file),
        Ok(Request::Build {
            file,
            output,
            strip,
        }) => build(&file, &output, strip),
        Ok(Request::Help) => {
            print!("{}", options::USAGE);
            0
        }
        Ok(Request::Version) => {
            println!("vua {}", env!("CARGO_PKG_VERSION"));
            0
        }
        Err(message) => {
            eprintln!("vua: {message}\nTry 'vua --help'.");
            NOT_RUN
        }
    };
    process::exit(status);
}

/// The options of an engine where none were given.
fn unasked() -> Options {
    Options {
        memory: memory::default_limit(),
        ..Options::default()
    }
}

/// The program's source, or `None` after saying why not.
fn read_program(file: &Path) -> Option<Vec<u8>> {
    match fs::read(file) {
        Ok(source) => Some(source),
        Err(error) => {
            eprintln!("vua: cannot open {}: {error}", file.display());
            None
        }
    }
}

fn folder_of(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Runs the prompt on the terminal. Gives the exit status.
fn talk() -> i32 {
    let workers = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let host: &'static Host = Box::leak(Box::new(Host::new(workers, PathBuf::new())));
    match prompt::Lines::new() {
        Ok(lines) => host.edit_lines(lines),
        Err(error) => {
            eprintln!("vua: {error}");
            return NOT_RUN;
        }
    }
    let settings = prompt::Settings::save();
    let engine = match Engine::new(host, unasked()) {
        Ok(engine) => engine,
        Err(_) => {
            eprintln!("vua: not enough memory");
            return NOT_RUN;
        }
    };
    host.attach(engine);
    if let Err(error) = interrupt::on_interrupt(Interrupt::Interrupts, prompt::interrupt)
        .and_then(|()| platform::start_services(host))
    {
        eprintln!("vua: cannot start a thread: {error}");
        return NOT_RUN;
    }
    let version = env!("CARGO_PKG_VERSION").as_bytes();
    let loaded = engine
        .define("interrupted", prompt::interrupted)
        .and_then(|()| engine.load_program("prompt.vua", prompt::PROGRAM, &[version]));
    if let Err(error) = loaded {
        eprintln!("{error}");
        return NOT_RUN;
    }
    let status = work_on_threads(engine, workers);
    if let Some(settings) = settings {
        settings.restore();
    }
    status
}

/// Runs the program that standard input holds, as `lua` does where nobody sits before it.
fn run_input() -> i32 {
    run(
        Path::new("/dev/stdin"),
        Vec::new(),
        Machine {
            workers: thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cores: Cores::Threads,
            race: false,
            random_seed: None,
        },
        false,
        unasked(),
        &Reports::default(),
    )
}

/// What a program runs on.
struct Machine {
    workers: usize,
    cores: Cores,
    race: bool,
    random_seed: Option<u64>,
}

fn run(
    file: &Path,
    arguments: Vec<OsString>,
    machine: Machine,
    stats: bool,
    options: Options,
    reports: &Reports,
) -> i32 {
    let Some(source) = read_program(file) else {
        return NOT_RUN;
    };
    let Machine {
        workers,
        cores,
        race,
        random_seed,
    } = machine;
    // All live as long as the process: threads that nobody joins refer to them.
    let host: &'static Host = Box::leak(Box::new(Host::new(workers, folder_of(file))));
    if let Some(seed) = random_seed {
        host.fix_entropy(seed);
        host.fix_memory();
    }
    let turns = match cores {
        Cores::Threads => None,
        Cores::Seeded(seed) => Some((Order::Random, seed)),
        Cores::Simulated => Some((Order::Rounds, SIMULATION_SEED)),
    };
    let turns: Option<(&'static VirtualMachine, Order)> = turns.map(|(order, seed)| {
        host.fix_memory();
        let machine = VirtualMachine::new(host, workers, seed, order == Order::Random);
        (&*Box::leak(Box::new(machine)), order)
    });
    let platform: &'static dyn Platform = match turns {
        Some((machine, _)) => machine,
        None => host,
    };
    let engine = match Engine::new(platform, options) {
        Ok(engine) => engine,
        Err(_) => {
            eprintln!("vua: not enough memory");
            return NOT_RUN;
        }
    };
    let mut started = interrupt::on_interrupt(Interrupt::Cancels, || engine.cancel());
    if turns.is_none() {
        host.attach(engine);
        started = started
            .and_then(|()| platform::start_services(host))
            .and_then(|()| reports.start(engine));
    }
    if let Err(error) = started {
        eprintln!("vua: cannot start a thread: {error}");
        return NOT_RUN;
    }
    let arguments: Vec<&[u8]> = arguments
        .iter()
        .map(|argument| argument.as_bytes())
        .collect();
    if let Err(error) = engine.load_program(&file.to_string_lossy(), &source, &arguments) {
        eprintln!("{error}");
        return NOT_RUN;
    }
    let status = match turns {
        None => work_on_threads(engine, workers),
        Some((machine, order)) => {
            // A thread of its own, with the stack that cores have.
            let driver = thread::Builder::new()
                .stack_size(WORKER_STACK)
                .spawn(move || engine.work_in_turns(machine, order, race));
            match driver {
                Ok(thread) => finish_turns(thread, cores),
                Err(error) => {
                    eprintln!("vua: cannot start a thread: {error}");
                    return NOT_RUN;
                }
            }
        }
    };
    if let Err(error) = reports.write(engine, file) {
        eprintln!("vua: {error}");
    }
    if stats {
        _ = writeln!(std::io::stderr(), "{}", engine.stats());
    }
    status
}

/// The status of a program whose cores take turns; prints what was measured.
fn finish_turns(driver: thread::JoinHandle<Report>, cores: Cores) -> i32 {
    // A panic ends the process.
    let Ok(report) = driver.join() else {
        return 1;
    };
    if cores == Cores::Simulated {
        _ = writeln!(std::io::stderr(), "{}", report.json());
    }
    if report.races == 0 {
        return report.status;
    }
    let races = if report.races == 1 {
        "data race"
    } else {
        "data races"
    };
    _ = writeln!(std::io::stderr(), "vua: {} {races} found", report.races);
    if report.status == 0 { 1 } else { report.status }
}

/// Runs the program with a thread for each core.
fn work_on_threads(engine: &'static Engine, workers: usize) -> i32 {
    let mut threads = Vec::with_capacity(workers);
    for cpu in 0..workers {
        let thread = thread::Builder::new()
            .name(format!("cpu {cpu}"))
            .stack_size(WORKER_STACK);
        match thread.spawn(move || engine.work(cpu)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                // The engine counts on every core, so there is no going on with fewer.
                eprintln!("vua: cannot start worker {cpu}: {error}");
                return NOT_RUN;
            }
        }
    }
    let mut status = 0;
    for thread in threads {
        // A panic ends the process (profiles say `panic = "abort"`), so every thread returns.
        status = thread.join().unwrap_or(1);
    }
    status
}

/// Where the program in a folder finds modules, whose structs it may name.
struct Beside(PathBuf);

impl vua::compile::modules::Files for Beside {
    fn read(&self, file: &str, _: &mut dyn FnMut(usize) -> bool) -> Option<Vec<u8>> {
        platform::candidates(&self.0, file)
            .into_iter()
            .find_map(|path| fs::read(path).ok())
    }
}

/// A function that was compiled before, verified.
fn read_compiled(bytes: &[u8]) -> Result<Function, String> {
    let function = vua::bytecode::binary::decode(bytes)?;
    vua::bytecode::verify(&function).map_err(|error| format!("bytecode refused: {error}"))?;
    Ok(function)
}

/// The program's compiled main function, or `None` after saying why there is none.
fn compile(file: &Path) -> Option<Function> {
    let source = read_program(file)?;
    let text = vua::compile::without_first_comment(&source);
    if text.starts_with(&vua::bytecode::binary::SIGNATURE) {
        return match read_compiled(text) {
            Ok(function) => Some(function),
            Err(message) => {
                eprintln!("{}: {message}", file.display());
                None
            }
        };
    }
    let files = Beside(folder_of(file));
    let (function, _) =
        vua::compile::compile_within(text, &file.to_string_lossy(), &files, &mut |_| true);
    match function {
        Ok(function) => Some(function),
        Err(diagnostics) => {
            for diagnostic in diagnostics {
                eprintln!("{diagnostic}");
            }
            None
        }
    }
}

/// Compiles a program into a file.
fn build(file: &Path, output: &Path, strip: bool) -> i32 {
    let Some(function) = compile(file) else {
        return NOT_RUN;
    };
    let bytes = vua::bytecode::binary::encode(&function, strip);
    match fs::write(output, bytes) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("vua: cannot write {}: {error}", output.display());
            NOT_RUN
        }
    }
}

fn check(file: &Path) -> i32 {
    if compile(file).is_some() { 0 } else { NOT_RUN }
}

fn disassemble(file: &Path) -> i32 {
    let Some(function) = compile(file) else {
        return NOT_RUN;
    };
    print!("{}", vua::bytecode::disassemble(&function));
    0
}
