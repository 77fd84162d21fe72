//! ISO images that boot through the official Limine, on BIOS and UEFI machines, from a disc or a USB stick.
//!
//! The layout and the arguments of xorriso are those that Limine's `USAGE.md` gives.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::archive::Archive;
use crate::options::Iso;
use crate::{Installation, say, symbols};

/// What an image needs of a binary release, and where it goes in the image.
const LIMINE_FILES: [(&str, &str); 4] = [
    ("limine-bios.sys", "boot/limine/limine-bios.sys"),
    ("limine-bios-cd.bin", "boot/limine/limine-bios-cd.bin"),
    ("limine-uefi-cd.bin", "boot/limine/limine-uefi-cd.bin"),
    ("BOOTX64.EFI", "EFI/BOOT/BOOTX64.EFI"),
];

const HOW_TO_GET_LIMINE: &str = "\
an ISO image needs a binary release of the Limine boot loader, version 8 or later. To get one:
  git clone --depth=1 --branch=v8.x-binary https://github.com/limine-bootloader/limine.git
and then: scripts/iso --limine limine";

/// `scripts/iso`.
pub fn command(request: &Iso) -> Result<(), Box<dyn Error>> {
    let installation = Installation::find()?;
    let limine = limine_folder(&installation, request.limine.as_deref())?;
    let archive = match &request.program {
        Some(program) => Archive::of_program(&installation.programs, program, &request.arguments)?,
        None => Archive::of_console(&installation.programs)?,
    };
    for warning in archive.warnings() {
        say(warning);
    }
    let output = request
        .output
        .clone()
        .unwrap_or_else(|| installation.target.join("viridis.iso"));
    build(
        &installation,
        &limine,
        Some(&archive.to_ustar()?),
        &request.append.join(" "),
        &output,
    )?;
    if !limine.join("limine").is_file() {
        say(&format!(
            "BIOS machines will not boot this image from a USB stick: that needs Limine's deployer (make -C {})",
            limine.display()
        ));
    }
    say(&format!("{} is ready", output.display()));
    Ok(())
}

/// The folder of Limine's binary release: the one given, or `LIMINE_DIR`, or the one last given.
pub fn limine_folder(
    installation: &Installation,
    given: Option<&Path>,
) -> Result<PathBuf, Box<dyn Error>> {
    let remembered = installation.target.join("limine-folder");
    let folder = match given {
        Some(folder) => folder.to_owned(),
        None => match std::env::var_os("LIMINE_DIR") {
            Some(folder) => folder.into(),
            None => fs::read(&remembered)
                .map(OsString::from_vec)
                .map_err(|_| HOW_TO_GET_LIMINE)?
                .into(),
        },
    };
    for (name, _) in LIMINE_FILES {
        if !folder.join(name).is_file() {
            return Err(
                format!("{} holds no {name}; {HOW_TO_GET_LIMINE}", folder.display()).into(),
            );
        }
    }
    let folder = fs::canonicalize(folder)?;
    if given.is_some() {
        fs::write(remembered, folder.as_os_str().as_bytes())?;
    }
    Ok(folder)
}

/// Where distributions put OVMF's code, the UEFI firmware for QEMU.
const OVMF: [&str; 5] = [
    "/usr/share/OVMF/OVMF_CODE_4M.fd",
    "/usr/share/OVMF/OVMF_CODE.fd",
    "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
    "/usr/share/edk2/ovmf/OVMF_CODE.fd",
    "/usr/share/qemu/edk2-x86_64-code.fd",
];

/// UEFI's code for QEMU: the file that the variable `OVMF` names, or the distribution's.
pub fn uefi() -> Result<PathBuf, Box<dyn Error>> {
    match std::env::var_os("OVMF") {
        Some(path) => Some(PathBuf::from(path)),
        None => OVMF.iter().map(PathBuf::from).find(|path| path.is_file()),
    }
    .filter(|path| path.is_file())
    .ok_or_else(|| "no UEFI firmware for QEMU: install OVMF, or name its code in OVMF".into())
}

/// Writes an image to `output` that boots the kernel with `archive` and the command line `append`.
pub fn build(
    installation: &Installation,
    limine: &Path,
    archive: Option<&[u8]>,
    append: &str,
    output: &Path,
) -> Result<(), Box<dyn Error>> {
    let staging = tempfile::Builder::new().prefix("viridis-iso-").tempdir()?;
    let root = staging.path();
    for folder in ["boot/limine", "EFI/BOOT"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (name, place) in LIMINE_FILES {
        fs::copy(limine.join(name), root.join(place))?;
    }
    fs::copy(&installation.kernel, root.join("boot/kernel"))?;
    if let Some(archive) = archive {
        fs::write(root.join("boot/boot.tar"), archive)?;
    }
    let symbols = symbols::of(&installation.kernel);
    if let Some(symbols) = &symbols {
        fs::write(root.join("boot/kernel.symbols"), symbols)?;
    }
    fs::write(
        root.join("boot/limine/limine.conf"),
        configuration(append, archive.is_some(), symbols.is_some()),
    )?;

    let mut xorriso = Command::new("xorriso");
    xorriso
        .args(["-as", "mkisofs", "-quiet", "-R", "-r", "-J"])
        .args([
            "-b",
            "boot/limine/limine-bios-cd.bin",
            "-no-emul-boot",
            "-boot-load-size",
            "4",
            "-boot-info-table",
        ])
        .args(["-hfsplus", "-apm-block-size", "2048"])
        .args([
            "--efi-boot",
            "boot/limine/limine-uefi-cd.bin",
            "-efi-boot-part",
            "--efi-boot-image",
        ])
        .arg("--protective-msdos-label")
        .arg(root)
        .arg("-o")
        .arg(output);
    check(&mut xorriso, "scripts/setup installs it")?;
    let deployer = limine.join("limine");
    if deployer.is_file() {
        check(
            Command::new(&deployer).arg("bios-install").arg(output),
            "it is Limine's deployer",
        )?;
    }
    Ok(())
}

/// Limine's configuration. Release 8 knows the kernel's path as `kernel_path`, later ones as `path`; each ignores the
/// other.
fn configuration(append: &str, archive: bool, symbols: bool) -> String {
    let module = |there: bool, name: &str| {
        let line = format!("    module_path: boot():/boot/{name}\n");
        if there { line } else { String::new() }
    };
    let modules = module(archive, "boot.tar") + &module(symbols, "kernel.symbols");
    format!(
        "timeout: 0\n\
         quiet: yes\n\
         \n\
         /Viridis\n\
         \x20   protocol: limine\n\
         \x20   path: boot():/boot/kernel\n\
         \x20   kernel_path: boot():/boot/kernel\n\
         \x20   cmdline: {append}\n\
         {modules}"
    )
}

/// Runs a command; when it fails, what it printed becomes the error.
fn check(command: &mut Command, hint: &str) -> Result<(), Box<dyn Error>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot run {name}: {error} ({hint})"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!(
        "{name}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&text).trim_end()
    )
    .into())
}
