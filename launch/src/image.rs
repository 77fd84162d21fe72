//! The boot image that the direct loader takes: a ustar archive of three members, `kernel` (its ELF file), `boot.tar` (the
//! boot archive) and `kernel.symbols` (see [`crate::symbols`]); the kernel sees the latter two as its modules.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Writes the image to `path` and returns its size in bytes. `archive` is the boot archive, if there is to be one, and `symbols` the kernel's, if there are any.
pub fn write(
    path: &Path,
    kernel: &Path,
    archive: Option<&[u8]>,
    symbols: Option<&[u8]>,
) -> Result<u64, Box<dyn Error>> {
    let kernel =
        fs::read(kernel).map_err(|error| format!("cannot read {}: {error}", kernel.display()))?;
    let mut builder = tar::Builder::new(BufWriter::new(File::create(path)?));
    append(&mut builder, "kernel", &kernel)?;
    if let Some(archive) = archive {
        append(&mut builder, "boot.tar", archive)?;
    }
    if let Some(symbols) = symbols {
        append(&mut builder, "kernel.symbols", symbols)?;
    }
    builder.into_inner()?.flush()?;
    Ok(fs::metadata(path)?.len())
}

/// Appends a regular file in plain ustar form, with nothing in its header that depends on the host.
/// Fails when `name` does not fit the format: 100 bytes, or 255 where a `/` stands so that it can be cut in two.
pub fn append<W: Write>(
    builder: &mut tar::Builder<W>,
    name: &str,
    content: &[u8],
) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    builder.append(&header, content)
}
