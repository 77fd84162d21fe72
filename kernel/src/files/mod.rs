//! Files: those of the boot archive, read in place, and those that programs write, kept in memory.
//!
//! A written file hides an archive member of the same name; removing it uncovers that again. Content is immutable once
//! written: a new write replaces it, and readers of the old one keep it until they are done.

pub mod archive;
pub mod ustar;

use crate::{console, time, warn};
use alloc::{collections::BTreeMap, string::String, sync::Arc, vec::Vec};
use smp::platform::FileError;
use spin::Mutex;

/// Files that programs wrote. The lock is held for look-ups, never while content is read, copied or sent.
static WRITTEN: Mutex<BTreeMap<String, Arc<Vec<u8>>>> = Mutex::new(BTreeMap::new());

/// Longest name, so that every file can be sent in an archive.
const LONGEST: usize = 255;

/// `name` without `.` parts and doubled slashes; `None` for names that are empty, absolute, or lead outside with `..`.
fn normal(name: &str) -> Option<String> {
    if name.starts_with('/') || name.contains('\0') {
        return None;
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

/// The whole content of a file; see [`smp::platform::Platform::read_file`].
pub fn read(name: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FileError> {
    let name = normal(name).ok_or(FileError::NotFound)?;
    let written = WRITTEN.lock().get(&name).cloned();
    if let Some(content) = written {
        take(&content);
        return Ok(());
    }
    take(archive::find(&name).ok_or(FileError::NotFound)?);
    Ok(())
}

/// Creates or replaces a file; see [`smp::platform::Platform::write_file`].
pub fn write(name: &str, bytes: &[u8]) -> Result<(), FileError> {
    let name = normal(name)
        .filter(|name| name.len() <= LONGEST)
        .ok_or(FileError::Other)?;
    // The size is checked when the name is known to be sound, before anything is replaced.
    ustar::header(&name, bytes.len() as u64, 0).map_err(|_| FileError::Other)?;
    let mut content = Vec::new();
    content
        .try_reserve_exact(bytes.len())
        .map_err(|_| FileError::NoSpace)?;
    content.extend_from_slice(bytes);
    let old = WRITTEN.lock().insert(name, Arc::new(content));
    drop(old);
    Ok(())
}

/// Removes a written file; see [`smp::platform::Platform::remove_file`].
pub fn remove(name: &str) -> Result<(), FileError> {
    let name = normal(name).ok_or(FileError::NotFound)?;
    let old = WRITTEN.lock().remove(&name);
    match old {
        Some(_) => Ok(()),
        None if archive::find(&name).is_some() => Err(FileError::ReadOnly),
        None => Err(FileError::NotFound),
    }
}

/// Sends all written files over the third serial port, as one archive. Called when the program has ended.
pub fn send() {
    let files: Vec<(String, Arc<Vec<u8>>)> = WRITTEN
        .lock()
        .iter()
        .map(|(name, content)| (name.clone(), content.clone()))
        .collect();
    let now = time::wall_clock().as_secs();
    let mut write = |bytes: &[u8]| console::write_archive(bytes);
    for (name, content) in &files {
        if ustar::member(name, content, now, &mut write).is_err() {
            warn!("{name} does not fit an archive and is not sent");
        }
    }
    ustar::end(&mut write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_normal() {
        let name = |text| normal(text);
        assert_eq!(name("a/b.txt").as_deref(), Some("a/b.txt"));
        assert_eq!(name("./a//b/../c").as_deref(), Some("a/c"));
        assert_eq!(name(""), None);
        assert_eq!(name("."), None);
        assert_eq!(name("/etc/passwd"), None);
        assert_eq!(name("a/../../b"), None);
        assert_eq!(name("a\0b"), None);
    }

    #[test]
    fn a_written_file_can_be_read_replaced_and_removed() {
        let read_text = |name: &str| {
            let mut text = Vec::new();
            read(name, &mut |bytes| text.extend_from_slice(bytes)).map(|()| text)
        };
        assert_eq!(read_text("out/one.txt"), Err(FileError::NotFound));
        write("out/one.txt", b"first").unwrap();
        write("./out//one.txt", b"second").unwrap();
        assert_eq!(read_text("out/one.txt"), Ok(b"second".to_vec()));
        assert_eq!(remove("out/one.txt"), Ok(()));
        assert_eq!(remove("out/one.txt"), Err(FileError::NotFound));
        assert_eq!(write("../outside", b""), Err(FileError::Other));
    }
}
