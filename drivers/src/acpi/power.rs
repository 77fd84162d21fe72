//! Switching the machine off and starting it anew, as the FADT says (ACPI 6.5, sections 4.8.3, 5.2.9, 7.4.2 and 16.1.7).
//!
//! The way off is a value for the control registers that the DSDT names, in a package `\_S5`. That is a constant in every known
//! machine, so the package is looked for among the DSDT's bytes, and no AML is run.

use super::tables::{Complain, Memory, Root, table, u32_at, u64_at};
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
    pub(super) fn read(memory: &impl Memory, root: &Root, complain: Complain<'_>) -> Option<Self> {
        let fadt = root.table(memory, b"FACP", complain)?;
        let port = |offset: usize| u32_at(fadt, offset).and_then(|port| u16::try_from(port).ok());
        let dsdt = [
            u64_at(fadt, 140).unwrap_or(0),
            u32_at(fadt, 40).unwrap_or(0).into(),
        ];
        let dsdt = dsdt
            .into_iter()
            .find(|&address| address != 0)
            .and_then(|address| match table(memory, address, b"DSDT") {
                Ok(table) => Some(table),
                Err(problem) => {
                    complain(format_args!("DSDT {problem}; no way to switch off"));
                    None
                }
            });
        let sleep = dsdt.and_then(sleep_types).and_then(|[first, second]| {
            let a = port(64).filter(|&port| port != 0)?;
            Some([(a, first), (port(68).unwrap_or(0), second)])
        });
        let enable = port(48)
            .filter(|&port| port != 0)
            .zip(fadt.get(52).copied().filter(|&value| value != 0));
        // Flag bit 10: there is a reset register. Address space 1 is I/O.
        let has_reset = u32_at(fadt, 112).is_some_and(|flags| flags & 1 << 10 != 0);
        let reset = u64_at(fadt, 120)
            .filter(|_| has_reset && fadt.get(116) == Some(&1))
            .and_then(|port| u16::try_from(port).ok())
            .zip(fadt.get(128).copied());
        Some(Self {
            sleep,
            enable,
            reset,
        })
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
