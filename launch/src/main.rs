//! What stands behind `scripts/run` and `scripts/iso`: packs the boot archive, starts QEMU, and connects the
//! machine's serial ports to this process's standard streams.
//!
//! A host program; it may use any crate. Three invariants hold everywhere in it:
//!
//! - Standard output carries what the Vua program printed, to the byte, and nothing else.
//! - No QEMU outlives this process, however it ends.
//! - Nothing outside the folder of the program and the shipped programs enters the archive, and nothing that a
//!   machine sends back is written outside the folder named by `--out`.

mod accelerator;
mod archive;
mod escape;
mod image;
mod iso;
mod machine;
mod options;
mod returned;
mod symbols;

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use archive::Archive;
use machine::{Boot, Machine};
use options::{BootArchive, Command, Firmware, Run};

/// Exit statuses that this program gives by itself; any other is the Vua program's.
pub mod status {
    /// Something other than the program failed after it ran, such as writing its files.
    pub const FAILED: u8 = 1;
    /// The command line is wrong, or the program is not found or does not compile.
    pub const NOT_RUNNABLE: u8 = 2;
    /// The kernel panicked, or the machine died without saying why.
    pub const MACHINE_DIED: u8 = 101;
    /// The limit given by `--timeout` passed.
    pub const TIMED_OUT: u8 = 124;
    /// Cancelled by Ctrl-C.
    pub const CANCELLED: u8 = 130;
    /// The reader of standard output went away; 128 + SIGPIPE, as a shell reports it.
    pub const OUTPUT_CLOSED: u8 = 141;
}

fn main() -> ExitCode {
    let result = match options::parse(std::env::args_os()) {
        Ok(Command::Help(text)) => {
            println!("{text}");
            Ok(0)
        }
        Ok(Command::Run(run)) => boot_and_run(&run),
        Ok(Command::Iso(request)) => iso::command(&request).map(|()| 0),
        Err(error) => Err(error),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            say(&error.to_string());
            ExitCode::from(status::NOT_RUNNABLE)
        }
    }
}

/// Prints a message of the launcher itself on standard error.
pub fn say(message: &str) {
    // Not `eprintln!`: a closed standard error is no reason to panic.
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("viridis: {message}\n").as_bytes(),
    );
}

fn boot_and_run(run: &Run) -> Result<u8, Box<dyn Error>> {
    let installation = Installation::find()?;
    let archive = boot_archive(run, &installation)?;
    let archive = archive.as_deref();
    if let Some(out) = &run.out {
        fs::create_dir_all(out)
            .map_err(|error| format!("cannot create {}: {error}", out.display()))?;
    }

    let scratch = tempfile::Builder::new().prefix("viridis-").tempdir()?;
    let accelerator = accelerator::choose(run.accelerator, &installation, scratch.path())?;
    let append = kernel_command_line(run);
    let boot = if run.iso {
        let limine = iso::limine_folder(&installation, None)?;
        let path = scratch.path().join("viridis.iso");
        iso::build(&installation, &limine, archive, &append, &path)?;
        let uefi = match run.firmware {
            Firmware::Bios => None,
            Firmware::Uefi => Some(iso::uefi()?),
        };
        Boot::Iso {
            image: path,
            usb: run.usb,
            uefi,
        }
    } else {
        let path = scratch.path().join("boot.img");
        let symbols = symbols::of(&installation.kernel);
        let size = image::write(&path, &installation.kernel, archive, symbols.as_deref())?;
        run.memory.check_image(size)?;
        Boot::Direct {
            loader: installation.loader.clone(),
            image: path,
            append,
        }
    };
    let files = run
        .out
        .as_ref()
        .map(|_| scratch.path().join("returned.tar"));
    let machine = Machine {
        qemu: installation.qemu.clone(),
        accelerator,
        cpus: run.cpus,
        cpu: run.cpu.clone(),
        memory: run.memory.clone(),
        boot,
        files: files.clone(),
        gdb: run.gdb,
        more: run.qemu.clone(),
    };
    if run.gdb {
        say(&format!(
            "waiting for GDB: gdb {} -x scripts/viridis.gdb (it attaches to {})",
            installation.kernel.display(),
            machine::GDB
        ));
    }
    let ended = machine::run(&machine, run)?;

    let mut status = ended.status;
    if let (Some(out), Some(stream), true) = (&run.out, files, ended.clean)
        && let Err(error) = returned::unpack(&stream, out)
    {
        say(&format!("the program's files: {error}"));
        if status == 0 {
            status = status::FAILED;
        }
    }
    Ok(status)
}

/// The boot archive's bytes: packed from the program's folder, or taken as it is; `None` to boot without one.
fn boot_archive(run: &Run, installation: &Installation) -> Result<Option<Vec<u8>>, Box<dyn Error>> {
    match &run.boot_archive {
        Some(BootArchive::Absent) => return Ok(None),
        Some(BootArchive::File(path)) => {
            return fs::read(path)
                .map(Some)
                .map_err(|error| format!("{}: {error}", path.display()).into());
        }
        None => {}
    }
    let archive = match &run.program {
        Some(program) => Archive::of_program(&installation.programs, program, &run.arguments)?,
        None => Archive::of_console(&installation.programs)?,
    };
    for warning in archive.warnings() {
        say(warning);
    }
    Ok(Some(archive.to_ustar()?))
}

fn kernel_command_line(run: &Run) -> String {
    let mut words = Vec::new();
    if !run.verbose {
        words.push("quiet");
    }
    if run.stats {
        words.push("stats");
    }
    if run.out.is_some() {
        words.push("files");
    }
    words.extend(run.append.iter().map(String::as_str));
    words.join(" ")
}

/// Where the pieces lie that a boot needs.
pub struct Installation {
    /// The folder that holds build outputs and this program's remembered answers.
    pub target: PathBuf,
    /// The kernel's ELF file.
    pub kernel: PathBuf,
    /// The direct loader's ELF file.
    pub loader: PathBuf,
    /// The shipped Vua programs.
    pub programs: PathBuf,
    /// The emulator: a name to look up in `PATH`, or a path.
    pub qemu: OsString,
}

impl Installation {
    /// The kernel and the loader lie beside this executable, where `cargo build` puts all three.
    fn find() -> Result<Self, Box<dyn Error>> {
        let executable = std::env::current_exe()?;
        let profile = executable
            .parent()
            .ok_or("this executable lies in no folder")?;
        let target = profile.parent().unwrap_or(profile);
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .unwrap_or(Path::new("."));
        let installation = Self {
            target: target.to_owned(),
            kernel: profile.join("kernel"),
            loader: profile.join("loader"),
            programs: source.join("programs"),
            qemu: std::env::var_os("VIRIDIS_QEMU").unwrap_or_else(|| "qemu-system-x86_64".into()),
        };
        for piece in [&installation.kernel, &installation.loader] {
            if !piece.is_file() {
                return Err(format!(
                    "{} is not built: use scripts/run, which builds it",
                    piece.display()
                )
                .into());
            }
        }
        Ok(installation)
    }
}
