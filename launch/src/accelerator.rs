//! Which accelerator QEMU uses.
//!
//! That `/dev/kvm` opens proves little: inside some virtual machines a guest under KVM then crawls at a thousandth of
//! TCG's speed. So the kernel itself is booted under KVM once, with a program that ends at once, under a time limit.
//! The answer is kept in the target folder, for this version of the host's kernel and of QEMU.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::archive::Archive;
use crate::machine::{self, Boot, Machine, Trial};
use crate::options::{Memory, Wanted};
use crate::{Installation, image, say};

/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// The processor itself, through Linux's KVM.
    Kvm,
    /// QEMU's translator, with a thread for each core.
    Tcg,
}

impl Accelerator {
    /// The argument of QEMU's `-accel`.
    pub fn argument(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi",
        }
    }
}

/// A boot under TCG takes a second or two where the host is idle, and one under KVM that works takes less.
const TRIAL_LIMIT: Duration = Duration::from_secs(10);

/// Whether KVM works here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kvm {
    Works,
    /// It does not, for this reason.
    Fails(String),
}

/// Chooses the accelerator, and says on standard error which one and why, unless it was asked for and works.
///
/// Fails where KVM was asked for and does not work.
pub fn choose(
    wanted: Wanted,
    installation: &Installation,
    scratch: &Path,
) -> Result<Accelerator, Box<dyn Error>> {
    if wanted == Wanted::Tcg {
        return Ok(Accelerator::Tcg);
    }
    match (find_kvm(installation, scratch)?, wanted) {
        (Kvm::Works, Wanted::Kvm) => Ok(Accelerator::Kvm),
        (Kvm::Works, _) => {
            say("accelerator: KVM");
            Ok(Accelerator::Kvm)
        }
        (Kvm::Fails(reason), Wanted::Kvm) => Err(format!("--accel kvm: {reason}").into()),
        (Kvm::Fails(reason), _) => {
            say(&format!("accelerator: TCG ({reason})"));
            Ok(Accelerator::Tcg)
        }
    }
}

fn find_kvm(installation: &Installation, scratch: &Path) -> Result<Kvm, Box<dyn Error>> {
    let device = device_path();
    if let Err(error) = fs::OpenOptions::new().read(true).write(true).open(&device) {
        return Ok(Kvm::Fails(format!("{}: {error}", device.display())));
    }
    let memory = Remembered {
        path: installation.target.join("accelerator"),
        host: host_key(installation)?,
    };
    if let Some(answer) = memory.recall() {
        return Ok(answer);
    }
    say(&format!(
        "trying whether a guest runs under KVM (at most {} s, once)",
        TRIAL_LIMIT.as_secs()
    ));
    let (answer, lasting) = try_kvm(installation, scratch)?;
    if lasting {
        memory.keep(&answer);
    }
    Ok(answer)
}

/// The device file; `VIRIDIS_KVM` names another for tests.
fn device_path() -> std::path::PathBuf {
    std::env::var_os("VIRIDIS_KVM")
        .unwrap_or_else(|| "/dev/kvm".into())
        .into()
}

/// Boots a machine under KVM. Says whether the answer is worth keeping: a kernel that fails says nothing about KVM.
fn try_kvm(installation: &Installation, scratch: &Path) -> Result<(Kvm, bool), Box<dyn Error>> {
    let path = scratch.join("trial.img");
    image::write(
        &path,
        &installation.kernel,
        Some(&Archive::of_text("trial.vua", "os.exit(0)\n").to_ustar()?),
        None,
    )?;
    let machine = Machine {
        qemu: installation.qemu.clone(),
        accelerator: Accelerator::Kvm,
        cpus: 2,
        cpu: "max".to_owned(),
        memory: Memory::mebibytes(256),
        boot: Boot::Direct {
            loader: installation.loader.clone(),
            image: path,
            append: "quiet".to_owned(),
        },
        files: None,
        gdb: false,
        more: Vec::new(),
    };
    Ok(match machine::try_boot(&machine, TRIAL_LIMIT)? {
        Trial::Status(0) => (Kvm::Works, true),
        Trial::Status(status) => (
            Kvm::Fails(format!("a test boot under KVM ended with status {status}")),
            false,
        ),
        Trial::Died(why) => (
            Kvm::Fails(format!("a test boot under KVM failed: {why}")),
            true,
        ),
        Trial::Slow => {
            let seconds = TRIAL_LIMIT.as_secs();
            (
                Kvm::Fails(format!(
                    "there is /dev/kvm, but a test boot under it did not end within {seconds} s"
                )),
                true,
            )
        }
    })
}

/// What the answer depends on.
fn host_key(installation: &Installation) -> Result<String, Box<dyn Error>> {
    let qemu = std::process::Command::new(&installation.qemu)
        .arg("--version")
        .output()
        .map_err(|error| machine::explain_missing(&installation.qemu, error))?;
    let version = String::from_utf8_lossy(&qemu.stdout)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    let system = rustix::system::uname();
    Ok(format!(
        "{} {}; {version}",
        system.release().to_string_lossy(),
        system.version().to_string_lossy()
    ))
}

/// The file of two lines that keeps the answer: what it depends on, and the answer.
struct Remembered {
    path: std::path::PathBuf,
    host: String,
}

impl Remembered {
    fn recall(&self) -> Option<Kvm> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (host, answer) = text.strip_suffix('\n')?.split_once('\n')?;
        if host != self.host {
            return None;
        }
        match answer.split_once(": ") {
            None if answer == "kvm works" => Some(Kvm::Works),
            Some(("kvm fails", reason)) => Some(Kvm::Fails(reason.to_owned())),
            _ => None,
        }
    }

    fn keep(&self, answer: &Kvm) {
        let answer = match answer {
            Kvm::Works => "kvm works".to_owned(),
            Kvm::Fails(reason) => format!("kvm fails: {}", reason.replace('\n', " ")),
        };
        // Not fatal: the next run tries again.
        let _ = fs::write(&self.path, format!("{}\n{answer}\n", self.host));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_the_same_host_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accelerator");
        let here = Remembered {
            path: path.clone(),
            host: "linux 6; qemu 9".to_owned(),
        };
        let elsewhere = Remembered {
            path: path.clone(),
            host: "linux 7; qemu 9".to_owned(),
        };
        assert_eq!(here.recall(), None);
        for answer in [Kvm::Works, Kvm::Fails("too slow: 12 s".to_owned())] {
            here.keep(&answer);
            assert_eq!(here.recall(), Some(answer));
            assert_eq!(elsewhere.recall(), None);
        }
        for damaged in [
            "",
            "linux 6; qemu 9\n",
            "linux 6; qemu 9\nkvm wor\n",
            "linux 6; qemu 9\nkvm works",
        ] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(here.recall(), None, "{damaged:?}");
        }
    }
}
