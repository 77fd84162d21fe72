//! Standard input and output, to the byte.

use std::time::Duration;

use tests::{boot, machine, program, read_line, run, spawn, wait};

/// Bytes without a pattern that a lost or doubled byte would leave as it was.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    (0..length)
        .map(|_| {
            // Xorshift, with the shifts of Marsaglia, "Xorshift RNGs", 2003.
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[3]
        })
        .collect()
}

fn same(left: &[u8], right: &[u8]) {
    let difference = left
        .iter()
        .zip(right)
        .position(|(left, right)| left != right);
    assert_eq!(
        (left.len(), difference),
        (right.len(), None),
        "lengths, and where they differ first"
    );
}

/// What the program `megabyte` prints.
fn counted_megabyte() -> Vec<u8> {
    let mut expected = Vec::new();
    for line in 0..(1 << 20) / 16 {
        expected.extend(format!("{line:015}\n").into_bytes());
    }
    expected
}

#[test]
fn every_byte_can_be_printed() {
    let expected: Vec<u8> = (0..=255).collect();
    same(&boot(&[], &program("all_bytes"), &[]).success(), &expected);
}

#[test]
fn a_megabyte_can_be_printed() {
    same(
        &boot(&["--smp", "2"], &program("megabyte"), &[]).success(),
        &counted_megabyte(),
    );
}

#[test]
fn a_reader_that_dawdles_gets_everything() {
    let mut child = spawn(&mut machine(&["--smp", "2"], &program("megabyte"), &[]));
    assert_eq!(read_line(&mut child), "000000000000000");
    // Long enough for every buffer on the way to fill up.
    std::thread::sleep(Duration::from_secs(2));
    same(&wait(child).success(), &counted_megabyte()[16..]);
}

#[test]
fn standard_error_stays_apart() {
    let outcome = boot(&[], &program("two_streams"), &[]);
    assert_eq!(outcome.output, b"to output\n");
    assert!(outcome.error.contains("to error\n"), "{}", outcome.error);
    assert_eq!(outcome.status, Some(0));
}

#[test]
fn no_input_is_the_end_of_input() {
    assert_eq!(
        run(&mut machine(&[], &program("cat"), &[]), b"").success(),
        b""
    );
}

#[test]
fn every_byte_can_be_read() {
    let mut input: Vec<u8> = (0..=255).collect();
    // What the line to the machine uses for its own purposes.
    input.extend(b"\x10E\x10C\x10\x10\x10");
    input.extend(noise(1000));
    same(
        &run(&mut machine(&[], &program("cat"), &[]), &input).success(),
        &input,
    );
}

#[test]
fn long_input_is_read_whole() {
    let input = noise(200_000);
    same(
        &run(&mut machine(&["--smp", "2"], &program("cat"), &[]), &input).success(),
        &input,
    );
}

#[test]
fn lines_and_numbers_are_read() {
    let input = b"first line\n12 0x1F\nlast, without an end";
    let printed = run(&mut machine(&[], &program("lines"), &[]), input).success();
    assert_eq!(
        String::from_utf8_lossy(&printed),
        "first line\n43\nlast, without an end\nnil\n"
    );
}

/// The program's console is found behind bridges: a port of PCI Express, and a bridge to a conventional bus behind one.
#[test]
fn the_console_may_be_behind_bridges() {
    let port = "-device pcie-root-port,id=pcie,chassis=1";
    let bridges = format!("{port} -device pcie-pci-bridge,id=old,bus=pcie");
    let deeper = format!("{bridges} -device pci-bridge,id=deep,bus=old,chassis_nr=2,addr=1");
    for (bus, arguments) in [("pcie", port), ("old", &bridges), ("deep", &deeper)] {
        let options = ["--verbose", "--console-bus", bus, "--qemu", arguments];
        let mut machine = machine(&options, &program("cat"), &[]);
        let outcome = run(&mut machine, b"through a bridge\n");
        let log = &outcome.error;
        assert!(log.contains("virtio console at PCI "), "{bus}: {log}");
        assert!(!log.contains("virtio console at PCI 00:"), "{bus}: {log}");
        assert!(log.contains("program output and input"), "{bus}: {log}");
        assert_eq!(outcome.success(), b"through a bridge\n", "{bus}");
    }
}
