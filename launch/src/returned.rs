//! The files that a program wrote: one ustar stream from the machine, unpacked into a folder of the host.
//!
//! The stream is not trusted: it can name any path. Only plain files and folders are made, only under the given
//! folder, and never through a link that lies there.

use std::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

/// Makes opening a link an error instead of a way out.
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Unpacks the stream in the file `stream` into the folder `out`, which must exist.
/// What comes before an error is there afterwards.
pub fn unpack(stream: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let mut archive = tar::Archive::new(File::open(stream)?);
    for entry in archive.entries()? {
        let mut entry = entry.map_err(|error| format!("the stream is damaged: {error}"))?;
        let name = entry.path()?.into_owned();
        let path = place(out, &name)?;
        match entry.header().entry_type() {
            tar::EntryType::Regular => {
                make_folders(out, path.parent().unwrap_or(out))?;
                let mut file = OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .custom_flags(NO_FOLLOW)
                    .open(&path)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                let copied = io::copy(&mut entry, &mut file)
                    .map_err(|error| format!("{}: {error}", path.display()))?;
                if copied != entry.header().size()? {
                    return Err(
                        format!("{}: the stream ended within this file", path.display()).into(),
                    );
                }
            }
            tar::EntryType::Directory => make_folders(out, &path)?,
            _ => return Err(format!("{}: neither a file nor a folder", name.display()).into()),
        }
    }
    Ok(())
}

/// Where the member `name` goes under `out`.
fn place(out: &Path, name: &Path) -> Result<PathBuf, String> {
    let mut path = out.to_owned();
    for component in name.components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(format!("{}: leads out of the folder", name.display())),
        }
    }
    if path == out {
        return Err(format!("{}: names no file", name.display()));
    }
    Ok(path)
}

/// Makes the folders from `out`, which exists, down to `path`, which lies under it.
fn make_folders(out: &Path, path: &Path) -> Result<(), Box<dyn Error>> {
    let mut made = out.to_owned();
    for part in path.strip_prefix(out)? {
        made.push(part);
        match fs::symlink_metadata(&made) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => {
                return Err(format!("{}: there already, and not a folder", made.display()).into());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&made)?,
            Err(error) => return Err(format!("{}: {error}", made.display()).into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::image;

    /// A header whose name was not checked by the library that writes it.
    fn raw_header(name: &[u8], size: u64, kind: tar::EntryType) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(size);
        header.set_entry_type(kind);
        header.set_cksum();
        header
    }

    fn unpack_bytes(bytes: &[u8], out: &Path) -> Result<(), String> {
        let stream = tempfile::NamedTempFile::new().unwrap();
        fs::write(stream.path(), bytes).unwrap();
        unpack(stream.path(), out).map_err(|error| error.to_string())
    }

    #[test]
    fn files_and_folders_arrive() {
        let out = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        let binary: Vec<u8> = (0..=255).collect();
        image::append(&mut builder, "a/b/c.bin", &binary).unwrap();
        image::append(&mut builder, "./empty", b"").unwrap();
        builder
            .append(
                &raw_header(b"folder/", 0, tar::EntryType::Directory),
                &b""[..],
            )
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        for _ in 0..2 {
            unpack_bytes(&bytes, out.path()).unwrap();
            assert_eq!(fs::read(out.path().join("a/b/c.bin")).unwrap(), binary);
            assert_eq!(fs::read(out.path().join("empty")).unwrap(), b"");
            assert!(out.path().join("folder").is_dir());
        }
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for name in [&b"/absolute"[..], b"../up", b"a/../../up", b"..", b"."] {
            let outer = tempfile::tempdir().unwrap();
            let out = outer.path().join("out");
            fs::create_dir(&out).unwrap();
            let mut builder = tar::Builder::new(Vec::new());
            builder
                .append(&raw_header(name, 1, tar::EntryType::Regular), &b"x"[..])
                .unwrap();
            assert!(
                unpack_bytes(&builder.into_inner().unwrap(), &out).is_err(),
                "{name:?}"
            );
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1, "{name:?}");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{name:?}");
        }
    }

    #[test]
    fn no_link_is_made_or_followed() {
        let outer = tempfile::tempdir().unwrap();
        let (out, elsewhere) = (outer.path().join("out"), outer.path().join("elsewhere"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("file"), "untouched").unwrap();

        let mut header = raw_header(b"link", 0, tar::EntryType::Symlink);
        header.as_old_mut().linkname[..4].copy_from_slice(b"/etc");
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, &b""[..]).unwrap();
        assert!(unpack_bytes(&builder.into_inner().unwrap(), &out).is_err());
        assert!(fs::symlink_metadata(out.join("link")).is_err());

        symlink(&elsewhere, out.join("sub")).unwrap();
        symlink(elsewhere.join("file"), out.join("name")).unwrap();
        for name in ["sub/file", "sub/new", "name"] {
            let mut builder = tar::Builder::new(Vec::new());
            image::append(&mut builder, name, b"changed").unwrap();
            assert!(
                unpack_bytes(&builder.into_inner().unwrap(), &out).is_err(),
                "{name}"
            );
        }
        assert_eq!(fs::read(elsewhere.join("file")).unwrap(), b"untouched");
        assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    }

    #[test]
    fn a_cut_stream_is_an_error() {
        let out = tempfile::tempdir().unwrap();
        let mut builder = tar::Builder::new(Vec::new());
        image::append(&mut builder, "whole", b"1").unwrap();
        image::append(&mut builder, "cut", &[7; 2000]).unwrap();
        let bytes = builder.into_inner().unwrap();
        assert!(unpack_bytes(&bytes[..512 * 4], out.path()).is_err());
        assert_eq!(fs::read(out.path().join("whole")).unwrap(), b"1");
    }

    #[test]
    fn no_files_are_no_error() {
        let out = tempfile::tempdir().unwrap();
        unpack_bytes(&[], out.path()).unwrap();
        unpack_bytes(&[0; 1024], out.path()).unwrap();
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
    }
}
