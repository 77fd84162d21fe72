//! What a boot does with bad input: damaged boot archives, and damaged ACPI tables. It says what is wrong, leaves that out, and
//! goes on where it can.
//!
//! The tables are damaged in the running machine, by a debugger that stops it at the loader's first instruction.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::gdb::{self, Debugger};
use tests::{Outcome, boot, built, program, spawn, wait};

/// A ustar archive of these files. The size in the header may be another than the content's.
fn archive(files: &[(&str, &[u8], Option<&str>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, content, size) in files {
        let mut block = [0u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        let size = size.map_or_else(|| format!("{:011o}", content.len()), str::to_owned);
        block[124..124 + size.len()].copy_from_slice(size.as_bytes());
        block[136..147].copy_from_slice(b"00000000000");
        block[156] = b'0';
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes.extend(block);
        bytes.extend(*content);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

const PROGRAM: (&str, &[u8], Option<&str>) = ("main.vua", b"print('it ran')\n", None);
const ARGUMENTS: (&str, &[u8], Option<&str>) = (".viridis/arguments", b"main.vua\0", None);

fn boot_archive(bytes: &[u8]) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let path = folder.path().join("boot.tar");
    fs::write(&path, bytes).expect("a file can be written");
    let path = path.to_str().expect("a temporary folder's path is text");
    boot(&["--archive", path, "--verbose"], &program("exit"), &[])
}

#[track_caller]
fn says(outcome: &Outcome, what: &str) {
    assert!(outcome.error.contains(what), "{what}: {}", outcome.error);
    assert!(!outcome.error.contains("PANIC"), "{}", outcome.error);
}

#[track_caller]
fn ran(outcome: &Outcome) {
    assert_eq!(outcome.status, Some(0), "{}", outcome.error);
    assert_eq!(outcome.output, b"it ran\n");
}

#[test]
fn a_sound_archive_of_our_own() {
    ran(&boot_archive(&archive(&[ARGUMENTS, PROGRAM])));
}

#[test]
fn a_truncated_archive() {
    let whole = archive(&[ARGUMENTS, PROGRAM, ("data", &[7; 5000], None)]);
    let outcome = boot_archive(&whole[..4096]);
    says(
        &outcome,
        "boot archive: a file that is longer than the archive at byte 2048; what lies behind is left out",
    );
    ran(&outcome);
    let outcome = boot_archive(&whole[..700]);
    says(
        &outcome,
        "the archive ends without its two zero blocks at byte 1024",
    );
    assert_eq!(outcome.status, Some(2), "{}", outcome.error);
}

#[test]
fn a_garbled_archive() {
    let mut bytes = archive(&[ARGUMENTS, PROGRAM, ("data", b"x", None)]);
    bytes[2048 + 3] ^= 0xff;
    let outcome = boot_archive(&bytes);
    says(&outcome, "a header with a wrong checksum at byte 2048");
    ran(&outcome);
    says(
        &boot_archive(&[0x5a; 3000]),
        "a header with a wrong checksum at byte 0",
    );
}

#[test]
fn hostile_names_and_sizes() {
    let outcome = boot_archive(&archive(&[
        ("../../etc/passwd", b"x", None),
        ("/absolute", b"x", None),
        ("a/../../b", b"x", None),
        ARGUMENTS,
        PROGRAM,
        ("huge", b"x", Some("77777777777")),
    ]));
    says(
        &outcome,
        "a file is left out, its name leads outside or is no text: ../../etc/passwd",
    );
    says(&outcome, "no text: /absolute");
    says(&outcome, "a file that is longer than the archive");
    ran(&outcome);
}

#[test]
fn a_program_that_the_archive_names_but_does_not_hold() {
    let outcome = boot_archive(&archive(&[ARGUMENTS]));
    assert_eq!(outcome.status, Some(2), "{}", outcome.error);
    says(&outcome, "main.vua: no such file in the boot archive");
}

#[test]
fn no_archive() {
    let outcome = boot(&["--archive", "none", "--verbose"], &program("exit"), &[]);
    says(&outcome, "no boot archive");
}

/// The ACPI tables of a machine that stands at the loader's first instruction.
struct Tables {
    debugger: Debugger,
    root_pointer: u64,
    root: u64,
}

impl Tables {
    fn of(mut debugger: Debugger) -> Self {
        let area = debugger.read(0xe_0000, 0x2_0000);
        let at = area
            .chunks(16)
            .position(|line| line.starts_with(b"RSD PTR "));
        let root_pointer = 0xe_0000 + 16 * at.expect("the BIOS made ACPI tables") as u64;
        let root = debugger.read(root_pointer + 16, 4);
        let root = u32::from_le_bytes(*root.first_chunk().expect("four bytes")).into();
        Self {
            debugger,
            root_pointer,
            root,
        }
    }

    fn number(&mut self, address: u64) -> u64 {
        let bytes = self.debugger.read(address, 4);
        u32::from_le_bytes(*bytes.first_chunk().expect("four bytes")).into()
    }

    /// Where the table with this signature is.
    fn find(&mut self, signature: &[u8; 4]) -> u64 {
        let entries = (self.number(self.root + 4) - 36) / 4;
        let first = self.root + 36;
        (0..entries)
            .map(|index| first + 4 * index)
            .find_map(|entry| {
                let table = self.number(entry);
                (self.debugger.read(table, 4) == signature).then_some(table)
            })
            .expect("QEMU's BIOS makes that table")
    }

    /// Changes a byte, and with it the table's checksum if `fix` is the table's address.
    fn change(&mut self, address: u64, value: u8, fix: Option<u64>) {
        let old = self.debugger.read(address, 1)[0];
        self.debugger.write(address, &[value]);
        if let Some(table) = fix {
            let sum = self.debugger.read(table + 9, 1)[0];
            let sum = sum.wrapping_add(old).wrapping_sub(value);
            self.debugger.write(table + 9, &[sum]);
        }
    }
}

/// The address of the loader's first instruction.
fn loader_entry() -> u64 {
    let file = fs::read(built("loader")).expect("the loader is built");
    // The entry address in an ELF64 header.
    u64::from_le_bytes(*file[24..].first_chunk().expect("a header"))
}

/// Boots with tables that `damage` has damaged.
fn with_tables(damage: impl FnOnce(&mut Tables)) -> Outcome {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket: PathBuf = gdb::socket(folder.path());
    let options = gdb::options(&socket);
    let child = spawn(&mut machine(&options, &program("small")));
    let mut debugger = Debugger::connect(&socket);
    debugger.run_to(loader_entry());
    let mut tables = Tables::of(debugger);
    damage(&mut tables);
    tables.debugger.detach();
    wait(child)
}

fn machine(options: &[String; 2], program: &Path) -> Command {
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    tests::machine(
        &[&["--smp", "2", "--verbose"], &options[..]].concat(),
        program,
        &[],
    )
}

#[track_caller]
fn went_on(outcome: &Outcome, cores: u32) {
    assert_eq!(outcome.status, Some(0), "{}", outcome.error);
    says(outcome, &format!("cores: {cores} of {cores} up"));
}

#[test]
fn sound_tables() {
    let outcome = with_tables(|_| {});
    went_on(&outcome, 2);
    assert!(!outcome.error.contains("warning"), "{}", outcome.error);
}

#[test]
fn a_madt_with_a_wrong_checksum() {
    let outcome = with_tables(|tables| {
        let madt = tables.find(b"APIC");
        tables.change(madt + 40, 0xff, None);
    });
    went_on(&outcome, 1);
    says(&outcome, "ACPI: table APIC at 0x");
    says(&outcome, "wrong checksum; it is left out");
}

#[test]
fn a_madt_record_without_a_length() {
    // The second processor's record, whose length is the second byte of the second eight: the list would never end.
    let outcome = with_tables(|tables| {
        let madt = tables.find(b"APIC");
        tables.change(madt + 44 + 8 + 1, 0, Some(madt));
    });
    went_on(&outcome, 1);
    says(&outcome, "ACPI: MADT: a record of impossible length");
}

#[test]
fn a_madt_longer_than_memory() {
    let outcome = with_tables(|tables| {
        let madt = tables.find(b"APIC");
        tables.change(madt + 7, 0x7f, Some(madt));
    });
    went_on(&outcome, 1);
    says(&outcome, "ACPI: table APIC at 0x");
}

#[test]
fn a_damaged_hpet_table() {
    let outcome = with_tables(|tables| {
        let hpet = tables.find(b"HPET");
        tables.change(hpet + 40, 0x55, None);
    });
    went_on(&outcome, 2);
    says(&outcome, "ACPI: table HPET at 0x");
    // The next clock takes its place.
    says(&outcome, "MHz from Pit");
}

#[test]
fn a_damaged_root_table() {
    let outcome = with_tables(|tables| {
        let root = tables.root;
        tables.change(root + 12, 0x55, None);
    });
    went_on(&outcome, 1);
    says(&outcome, "ACPI: RSDT at 0x");
    says(&outcome, "no input interrupts");
}

#[test]
fn a_root_table_that_leads_nowhere() {
    let outcome = with_tables(|tables| {
        // The first pointer: to the FADT.
        let root = tables.root;
        tables.change(root + 36 + 3, 0xff, Some(root));
    });
    went_on(&outcome, 2);
}

#[test]
fn a_damaged_root_pointer() {
    let outcome = with_tables(|tables| {
        let pointer = tables.root_pointer;
        tables.change(pointer + 9, 0x55, None);
    });
    went_on(&outcome, 1);
    says(&outcome, "no ACPI tables");
}

#[test]
fn cores_that_the_firmware_and_the_loader_do_not_agree_on() {
    // The loader goes by the same table as the kernel, so they are made to differ in between: after the loader has read it
    // and before the kernel does.
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let socket = gdb::socket(folder.path());
    let child = spawn(&mut machine(&gdb::options(&socket), &program("small")));
    let mut debugger = Debugger::connect(&socket);
    debugger.run_to(loader_entry());
    let mut tables = Tables::of(debugger);
    let madt = tables.find(b"APIC");
    tables.debugger.run_to(kernel_entry());
    // In the loader's direct map, under whose tables the machine now runs.
    const DIRECT: u64 = 0xffff_8000_0000_0000;
    tables.change(DIRECT + madt + 44 + 8 + 3, 9, Some(DIRECT + madt));
    tables.debugger.detach();
    let outcome = wait(child);
    went_on(&outcome, 2);
    says(
        &outcome,
        "the MADT lists a core with APIC identifier 9, which the loader did not start",
    );
    says(
        &outcome,
        "the loader started a core with APIC identifier 1, which the MADT does not list",
    );
}

/// The address of the kernel's first instruction.
fn kernel_entry() -> u64 {
    let file = fs::read(built("kernel")).expect("the kernel is built");
    u64::from_le_bytes(*file[24..].first_chunk().expect("a header"))
}
