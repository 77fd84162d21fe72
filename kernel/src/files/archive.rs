//! The boot archive: a `ustar` module of the boot loader, indexed once and read in place.

use crate::{info, warn};
use alloc::{collections::BTreeMap, string::String};
use spin::Once;
use tar_no_std::TarArchiveRef;

type Index = BTreeMap<String, &'static [u8]>;

static INDEX: Once<Index> = Once::new();

/// Indexes the archive. Without one, or with one that is damaged, there are no files to begin with.
pub(crate) fn open(bytes: Option<&'static [u8]>) {
    INDEX.call_once(|| {
        let Some(bytes) = bytes else {
            warn!("no boot archive");
            return Index::new();
        };
        match index(bytes) {
            Ok(index) => {
                info!(
                    "boot archive: {} files, {} KiB",
                    index.len(),
                    bytes.len() >> 10
                );
                index
            }
            Err(error) => {
                warn!("boot archive: {error}");
                Index::new()
            }
        }
    });
}

fn index(bytes: &'static [u8]) -> Result<Index, tar_no_std::CorruptDataError> {
    let mut index = Index::new();
    // A loader may round a module's size up.
    let whole = bytes.len() / 512 * 512;
    for entry in TarArchiveRef::new(&bytes[..whole])?.entries() {
        let name = entry.filename();
        if let Some(name) = name.as_str().ok().and_then(super::normal) {
            // Of members with one name the last counts, as in tar.
            index.insert(name, entry.data());
        }
    }
    Ok(index)
}

/// The content of the archive's member with this (normal) name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    INDEX.get()?.get(name).copied()
}
