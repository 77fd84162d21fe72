//! Switching the machine off and starting it anew, as the FADT says (ACPI 6.5, sections 4.8.3, 5.2.9, 7.4.2 and 16.1.7).
//!
//! The way off is a value for the control registers that the DSDT names, in a package `\_S5`. That is a constant in every known
//! machine, so the package is looked for among the DSDT's bytes, and no AML is run.

use super::tables::{Complain, Memory, table};
use acpi::{
    address::{AddressSpace, GenericAddress},
    sdt::fadt::Fadt,
};
use x86_64::instructions::port::Port;

/// How to end a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Power {
    /// The control registers' ports, and what to write as sleep type; the second is 0 where there is none.
    sleep: Option<[(u16, u8); 2]>,
    /// Where writing what hands the registers from the firmware to us.
    enable: Option<(u16, u8)>,
    /// The reset register's port and value.
    reset: Option<(u16, u8)>,
}

/// Control register: the firmware has handed over.
const SCI_ENABLED: u16 = 1;
/// Control register: go to sleep.
const SLEEP: u16 = 1 << 13;

impl Power {
    /// Reads the FADT and the DSDT. Ways that the tables do not tell are left out.
    pub(super) fn read(memory: &impl Memory, fadt: Fadt, complain: Complain<'_>) -> Self {
        let dsdt = fadt.dsdt_address().ok().and_then(|address| {
            match table(memory, address as u64, b"DSDT") {
                Ok(table) => Some(table),
                Err(problem) => {
                    complain(format_args!("DSDT {problem}; no way to switch off"));
                    None
                }
            }
        });
        let sleep = dsdt.and_then(sleep_types).and_then(|[first, second]| {
            // Not by the crate's `pm1a_control_block`, which multiplies a length in the table by eight, in eight bits, and panics.
            let [a, b] = [fadt.pm1a_control_block, fadt.pm1b_control_block].map(u16::try_from);
            let a = a.ok().filter(|&port| port != 0)?;
            Some([(a, first), (b.unwrap_or(0), second)])
        });
        let enable = u16::try_from(fadt.smi_cmd_port)
            .ok()
            .filter(|&port| port != 0)
            .zip(Some(fadt.acpi_enable).filter(|&value| value != 0));
        let flags = fadt.flags;
        let reset = flags
            .supports_system_reset_via_fadt()
            .then(|| fadt.reset_register().ok().and_then(port))
            .flatten()
            .map(|port| (port, fadt.reset_value));
        Self {
            sleep,
            enable,
            reset,
        }
    }

    /// Whether the tables say how to switch the machine off.
    pub fn can_switch_off(&self) -> bool {
        self.sleep.is_some()
    }

    /// Switches the machine off. Returns when there is no way, and else perhaps before
    /// the machine has stopped.
    pub fn off(&self) {
        let Some(registers) = self.sleep else { return };
        let registers = registers.into_iter().filter(|&(port, _)| port != 0);
        if let (Some((port, value)), Some((control, _))) = (self.enable, registers.clone().next()) {
            // SAFETY: the ports that the firmware's tables name for this purpose.
            unsafe {
                let mut control = Port::<u16>::new(control);
                if control.read() & SCI_ENABLED == 0 {
                    Port::<u8>::new(port).write(value);
                    // The specification gives no bound; Linux waits three seconds. A read takes about a microsecond.
                    for _ in 0..3_000_000 {
                        if control.read() & SCI_ENABLED != 0 {
                            break;
                        }
                    }
                }
            }
        }
        for (port, kind) in registers {
            // SAFETY: as above. The other bits are kept.
            unsafe {
                let mut control = Port::<u16>::new(port);
                let kept = control.read() & !(7 << 10 | SLEEP);
                control.write(kept | u16::from(kind) << 10 | SLEEP);
            }
        }
    }

    /// Starts the machine anew. Returns as [`off`](Self::off) does.
    pub fn reset(&self) {
        if let Some((port, value)) = self.reset {
            // SAFETY: the port that the firmware's tables name for this purpose.
            unsafe { Port::<u8>::new(port).write(value) };
        }
    }
}

/// The I/O port of a register, if it is at one.
fn port(register: GenericAddress) -> Option<u16> {
    let port = u16::try_from(register.address).ok()?;
    (register.address_space == AddressSpace::SystemIo && port != 0).then_some(port)
}

/// Pulses the reset line of the keyboard controller, which PCs without a reset register listen to.
pub fn reset_by_keyboard_controller() {
    // SAFETY: the PC's standard port; the command resets the machine.
    unsafe { Port::<u8>::new(0x64).write(0xfe) };
}

/// The two sleep types for "off" from a DSDT: `Name (_S5, Package () {a, b, …})` (AML: sections 20.2.5.1 and 20.2.5.4).
fn sleep_types(dsdt: &[u8]) -> Option<[u8; 2]> {
    const NAME: u8 = 0x08;
    const ROOT: u8 = b'\\';
    const PACKAGE: u8 = 0x12;
    const BYTE: u8 = 0x0a;
    let places = dsdt
        .windows(4)
        .enumerate()
        .filter(|(_, name)| name == b"_S5_");
    for (at, _) in places {
        let named = matches!(dsdt[..at], [.., NAME] | [.., NAME, ROOT]);
        let Some([PACKAGE, length, ..]) = dsdt.get(at + 4..).filter(|_| named) else {
            continue;
        };
        // The length's first byte says how many more there are; behind it stands the number of elements.
        let mut rest = dsdt.get(at + 6 + usize::from(length >> 6) + 1..)?;
        let mut element = || match *rest {
            [BYTE, value, ref behind @ ..] => {
                rest = behind;
                Some(value)
            }
            // Zero and one have operators of their own.
            [value @ 0..=1, ref behind @ ..] => {
                rest = behind;
                Some(value)
            }
            _ => None,
        };
        let first = element()?;
        return Some([first & 7, element().unwrap_or(first) & 7]);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_sleep_types() {
        // As QEMU has it, and with a longer length and the root's name.
        let short = b"xx\x08_S5_\x12\x06\x04\x00\x00\x00\x00yy";
        assert_eq!(sleep_types(short), Some([0, 0]));
        let long = b"\x08\\_S5_\x12\x4a\x00\x02\x0a\x05\x0a\x07";
        assert_eq!(sleep_types(long), Some([5, 7]));
        let one = b"\x08_S5_\x12\x06\x04\x01\xff";
        assert_eq!(sleep_types(one), Some([1, 1]));
        for damaged in [
            &b"_S5_\x12\x06\x04\x00"[..],
            b"\x08_S5_",
            b"\x08_S5_\x12",
            b"\x08_S5_\x12\xff\x04",
            b"\x08_S5_\x13\x06\x04\x00",
            b"",
        ] {
            assert_eq!(sleep_types(damaged), None);
        }
    }
}
