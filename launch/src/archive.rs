//! The boot archive: the files that programs find in the machine.
//!
//! | member | what it is |
//! | --- | --- |
//! | the program's folder, recursively | at the archive's root, so that `require` and data files resolve as beside the program |
//! | `programs/…` | the shipped programs, unless the program's folder has a file of that name |
//! | `.viridis/arguments` | the program's path in the archive and its arguments, each ended by a NUL; absent: the console |
//!
//! Names that begin with a dot stay out, and so do folders with a cache tag (<https://bford.info/cachedir/>, which
//! Cargo puts into `target`), links that lead out of the folder, and what is neither file nor folder.

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::image;

const ARGUMENTS: &str = ".viridis/arguments";

/// What one folder may hold. A folder of programs and their data holds far less; a home folder, far more.
struct Limits {
    bytes: u64,
    files: usize,
    depth: usize,
}

const LIMITS: Limits = Limits {
    bytes: 64 << 20,
    files: 10_000,
    depth: 32,
};

/// The first bytes of a `CACHEDIR.TAG`.
const CACHE_TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// Files by their paths in the archive.
pub struct Archive {
    members: BTreeMap<String, Vec<u8>>,
    warnings: Vec<String>,
}

impl Archive {
    /// The archive for running the file `program`, with its folder and the shipped programs.
    pub fn of_program(
        shipped: &Path,
        program: &Path,
        arguments: &[OsString],
    ) -> Result<Self, Box<dyn Error>> {
        let content = read_program(program)?;
        let name = program
            .file_name()
            .and_then(OsStr::to_str)
            .filter(|name| !name.starts_with('.'))
            .ok_or_else(|| {
                format!(
                    "{}: a program's name is UTF-8 and has no dot in front",
                    program.display()
                )
            })?;
        let mut archive = Self::of_console(shipped)?;
        let folder = match program.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        archive.add_folder(folder, "", &LIMITS)?;
        archive.members.insert(name.to_owned(), content);

        let mut words = Vec::new();
        for word in
            std::iter::once(OsStr::new(name)).chain(arguments.iter().map(OsString::as_os_str))
        {
            words.extend(word.as_bytes());
            words.push(0);
        }
        archive.members.insert(ARGUMENTS.to_owned(), words);
        Ok(archive)
    }

    /// The archive without a program: the machine then starts its console.
    pub fn of_console(shipped: &Path) -> Result<Self, Box<dyn Error>> {
        let mut archive = Self {
            members: BTreeMap::new(),
            warnings: Vec::new(),
        };
        if shipped.is_dir() {
            archive.add_folder(shipped, "programs/", &LIMITS)?;
        } else {
            archive.warnings.push(format!(
                "{} is not there: no shipped programs",
                shipped.display()
            ));
        }
        Ok(archive)
    }

    /// An archive of one program given as text.
    pub fn of_text(name: &str, text: &str) -> Self {
        let mut arguments = name.as_bytes().to_vec();
        arguments.push(0);
        let members = [
            (name.to_owned(), text.as_bytes().to_vec()),
            (ARGUMENTS.to_owned(), arguments),
        ];
        Self {
            members: members.into(),
            warnings: Vec::new(),
        }
    }

    /// What was left out, and why.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The archive as a ustar stream: members in order of their names, the same bytes for the same files.
    pub fn to_ustar(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in &self.members {
            image::append(&mut builder, name, content)
                .map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(builder.into_inner()?)
    }

    /// Adds what lies under `folder`, with `prefix` before each name.
    fn add_folder(
        &mut self,
        folder: &Path,
        prefix: &str,
        limits: &Limits,
    ) -> Result<(), Box<dyn Error>> {
        let root =
            fs::canonicalize(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let unreasonable = |what: String| {
            format!(
                "the program's folder {} goes into the boot archive whole, but it has more than {what}: \
                 put the program into a folder with only what it needs",
                folder.display()
            )
        };
        let (mut bytes, mut files) = (0, 0);
        let mut open = vec![(root.clone(), prefix.to_owned(), 0)];
        while let Some((directory, prefix, depth)) = open.pop() {
            if depth > limits.depth {
                return Err(unreasonable(format!("{} levels of folders", limits.depth)).into());
            }
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if depth > 0 => {
                    self.leave_out(&directory, &error.to_string());
                    continue;
                }
                Err(error) => return Err(format!("{}: {error}", directory.display()).into()),
            };
            for entry in entries {
                let entry = entry?;
                files += 1;
                if files > limits.files {
                    return Err(unreasonable(format!("{} files", limits.files)).into());
                }
                let path = entry.path();
                let Ok(name) = entry.file_name().into_string() else {
                    self.leave_out(&path, "its name is not UTF-8");
                    continue;
                };
                if name.starts_with('.') {
                    continue;
                }
                let name = format!("{prefix}{name}");
                if entry.file_type()?.is_dir() {
                    if !has_cache_tag(&path) {
                        open.push((path, format!("{name}/"), depth + 1));
                    }
                    continue;
                }
                match self.read_file(&root, &path, limits.bytes - bytes)? {
                    Found::Nothing => {}
                    Found::TooLarge => {
                        return Err(unreasonable(format!("{} MiB", limits.bytes >> 20)).into());
                    }
                    Found::File(content) => {
                        bytes += content.len() as u64;
                        if fits_ustar(&name) {
                            self.members.insert(name, content);
                        } else {
                            self.leave_out(&path, "its path is too long for the archive");
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads a file, or the file that a link leads to within `root`, of at most `limit` bytes.
    fn read_file(&mut self, root: &Path, path: &Path, limit: u64) -> Result<Found, Box<dyn Error>> {
        let read = || -> io::Result<Result<Found, &'static str>> {
            let mut real = path.to_owned();
            if fs::symlink_metadata(path)?.is_symlink() {
                real = fs::canonicalize(path)?;
                if !real.starts_with(root) {
                    return Ok(Err("a link that leads out of the program's folder"));
                }
            }
            let metadata = fs::metadata(&real)?;
            if metadata.is_dir() {
                return Ok(Err("a link to a folder"));
            }
            if !metadata.is_file() {
                return Ok(Err("neither a file nor a folder"));
            }
            if metadata.len() > limit {
                return Ok(Ok(Found::TooLarge));
            }
            let content = fs::read(&real)?;
            Ok(Ok(if content.len() as u64 > limit {
                Found::TooLarge
            } else {
                Found::File(content)
            }))
        };
        match read() {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(reason)) => self.leave_out(path, reason),
            Err(error) => self.leave_out(path, &error.to_string()),
        }
        Ok(Found::Nothing)
    }

    fn leave_out(&mut self, path: &Path, reason: &str) {
        self.warnings.push(format!(
            "left out of the boot archive: {} ({reason})",
            path.display()
        ));
    }
}

enum Found {
    File(Vec<u8>),
    TooLarge,
    Nothing,
}

fn read_program(program: &Path) -> Result<Vec<u8>, String> {
    let metadata = fs::metadata(program).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("{}: no such file", program.display()),
        _ => format!("{}: {error}", program.display()),
    })?;
    if !metadata.is_file() {
        return Err(format!("{}: not a file", program.display()));
    }
    if metadata.len() > LIMITS.bytes {
        return Err(format!(
            "{}: larger than {} MiB",
            program.display(),
            LIMITS.bytes >> 20
        ));
    }
    fs::read(program).map_err(|error| format!("{}: {error}", program.display()))
}

fn fits_ustar(name: &str) -> bool {
    tar::Header::new_ustar().set_path(name).is_ok()
}

fn has_cache_tag(directory: &Path) -> bool {
    let tag: PathBuf = directory.join("CACHEDIR.TAG");
    fs::read(tag).is_ok_and(|content| content.starts_with(CACHE_TAG))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    fn unpack(archive: &Archive) -> BTreeMap<String, Vec<u8>> {
        let bytes = archive.to_ustar().unwrap();
        let mut members = BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(entry.path().unwrap().to_str().unwrap().to_owned(), content);
        }
        members
    }

    fn write(path: &Path, content: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    struct Folders {
        _temporary: tempfile::TempDir,
        shipped: PathBuf,
        home: PathBuf,
    }

    fn folders() -> Folders {
        let temporary = tempfile::tempdir().unwrap();
        let (shipped, home) = (
            temporary.path().join("shipped"),
            temporary.path().join("home"),
        );
        write(&shipped.join("demo.vua"), "demo");
        write(&shipped.join("sub/part.vua"), "part");
        write(&home.join("main.vua"), "main");
        Folders {
            _temporary: temporary,
            shipped,
            home,
        }
    }

    #[test]
    fn holds_the_programs_folder_the_shipped_programs_and_the_arguments() {
        let folders = folders();
        write(&folders.home.join("data/words.txt"), "words");
        let arguments = ["a b".into(), "".into(), "ü".into()];
        let archive =
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &arguments)
                .unwrap();
        let members = unpack(&archive);
        let names: Vec<_> = members.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                ".viridis/arguments",
                "data/words.txt",
                "main.vua",
                "programs/demo.vua",
                "programs/sub/part.vua"
            ]
        );
        assert_eq!(members[ARGUMENTS], "main.vua\0a b\0\0ü\0".as_bytes());
        assert_eq!(members["data/words.txt"], b"words");
        assert!(archive.warnings().is_empty(), "{:?}", archive.warnings());
    }

    #[test]
    fn the_programs_own_folder_goes_before_the_shipped_programs() {
        let folders = folders();
        write(&folders.home.join("programs/demo.vua"), "mine");
        let archive =
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &[]).unwrap();
        assert_eq!(unpack(&archive)["programs/demo.vua"], b"mine");
    }

    #[test]
    fn the_console_has_no_arguments_file() {
        let folders = folders();
        let members = unpack(&Archive::of_console(&folders.shipped).unwrap());
        assert_eq!(
            members.keys().collect::<Vec<_>>(),
            ["programs/demo.vua", "programs/sub/part.vua"]
        );
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let folders = folders();
        let pack = || {
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &[])
                .unwrap()
                .to_ustar()
        };
        assert_eq!(pack().unwrap(), pack().unwrap());
    }

    #[test]
    fn no_link_leads_out_of_the_folder() {
        let folders = folders();
        write(&folders.home.parent().unwrap().join("secret"), "secret");
        symlink("../secret", folders.home.join("escape")).unwrap();
        symlink("..", folders.home.join("up")).unwrap();
        symlink("main.vua", folders.home.join("inside.vua")).unwrap();
        symlink("nowhere", folders.home.join("dangling")).unwrap();
        let archive =
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &[]).unwrap();
        let members = unpack(&archive);
        assert_eq!(members["inside.vua"], b"main");
        for name in ["escape", "up", "dangling"] {
            assert!(
                !members.keys().any(|member| member.starts_with(name)),
                "{name}"
            );
            assert!(
                archive
                    .warnings()
                    .iter()
                    .any(|warning| warning.contains(name)),
                "{name}"
            );
        }
        assert!(!members.values().any(|content| content == b"secret"));
    }

    #[test]
    fn hidden_names_and_caches_stay_out() {
        let folders = folders();
        write(&folders.home.join(".git/config"), "x");
        write(
            &folders.home.join("target/CACHEDIR.TAG"),
            "Signature: 8a477f597d28d172789f06886806bc55\n# more",
        );
        write(&folders.home.join("target/large"), "x");
        let archive =
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &[]).unwrap();
        assert!(
            !unpack(&archive)
                .keys()
                .any(|name| name.contains("git") || name.contains("target"))
        );
    }

    #[test]
    fn paths_too_long_for_the_format_are_named() {
        let folders = folders();
        let fits = format!("{}/{}", "d".repeat(100), "f".repeat(100));
        let long = "n".repeat(101);
        write(&folders.home.join(&fits), "x");
        write(&folders.home.join(&long), "x");
        let archive =
            Archive::of_program(&folders.shipped, &folders.home.join("main.vua"), &[]).unwrap();
        assert!(unpack(&archive).contains_key(&fits));
        assert!(archive.warnings()[0].contains(&long));
    }

    #[test]
    fn an_unreasonable_folder_is_refused() {
        let folders = folders();
        write(&folders.home.join("a/b/c"), "0123456789");
        let refusal = |limits| {
            let mut archive = Archive {
                members: BTreeMap::new(),
                warnings: Vec::new(),
            };
            archive
                .add_folder(&folders.home, "", &limits)
                .map_err(|error| error.to_string())
        };
        assert!(
            refusal(Limits {
                bytes: 14,
                files: 4,
                depth: 2
            })
            .is_ok()
        );
        assert!(
            refusal(Limits {
                bytes: 13,
                files: 4,
                depth: 2
            })
            .unwrap_err()
            .contains("0 MiB")
        );
        assert!(
            refusal(Limits {
                bytes: 14,
                files: 3,
                depth: 2
            })
            .unwrap_err()
            .contains("3 files")
        );
        assert!(
            refusal(Limits {
                bytes: 14,
                files: 4,
                depth: 1
            })
            .unwrap_err()
            .contains("1 levels")
        );
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let folders = folders();
        let refusal = |path: PathBuf| {
            Archive::of_program(&folders.shipped, &path, &[])
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        assert!(refusal(folders.home.join("absent.vua")).contains("no such file"));
        assert!(refusal(folders.home.clone()).contains("not a file"));
    }
}
