//! The boot archive: a `ustar` module of the boot loader, indexed once and read in place.

use super::ustar::{self, Damage};
use crate::{info, warn};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use spin::Once;

type Index = BTreeMap<String, &'static [u8]>;

static INDEX: Once<Index> = Once::new();

/// Indexes the archive. Without one there are no files to begin with; of one that is damaged, those before the damage.
pub(crate) fn open(bytes: Option<&'static [u8]>) {
    INDEX.call_once(|| {
        let Some(bytes) = bytes else {
            warn!("no boot archive");
            return Index::new();
        };
        let (index, damage) = index(bytes);
        if let Some(damage) = damage {
            warn!("boot archive: {damage}; what lies behind is left out");
        }
        info!(
            "boot archive: {} files, {} KiB",
            index.len(),
            bytes.len() >> 10
        );
        index
    });
}

/// The files of an archive, and where it could not be read any further.
fn index(bytes: &'static [u8]) -> (Index, Option<Damage>) {
    let mut index = Index::new();
    let result = ustar::read(bytes, |member| {
        let mut name = Vec::with_capacity(member.prefix.len() + 1 + member.name.len());
        if !member.prefix.is_empty() {
            name.extend_from_slice(member.prefix);
            name.push(b'/');
        }
        name.extend_from_slice(member.name);
        match core::str::from_utf8(&name).ok().and_then(super::normal) {
            // Of members with one name the last counts, as in tar.
            Some(name) => {
                index.insert(name, member.content);
            }
            None => warn!(
                "boot archive: a file is left out, its name leads outside or is no text: {}",
                name.escape_ascii()
            ),
        }
    });
    (index, result.err())
}

/// The content of the archive's member with this (normal) name.
pub fn find(name: &str) -> Option<&'static [u8]> {
    INDEX.get()?.get(name).copied()
}
