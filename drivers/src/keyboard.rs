//! The PC's keyboard controller, an 8042 or what stands for one (IBM PC AT Technical Reference, section 1, "Keyboard
//! Controller"), and a keyboard behind it.
//!
//! The controller translates what the keyboard sends to scan codes of set 1, as firmware leaves it. The second port, for a mouse,
//! stays off.

use x86_64::instructions::port::Port;

const DATA: u16 = 0x60;
const STATUS: u16 = 0x64;

// Status bits.
/// There is a byte to read.
const OUTPUT_FULL: u8 = 1 << 0;
/// The controller has not yet taken the last byte.
const INPUT_FULL: u8 = 1 << 1;
/// The byte to read is the mouse's.
const FROM_MOUSE: u8 = 1 << 5;
/// What nothing at all answers.
const FLOATING: u8 = 0xff;

// Commands to the controller.
const READ_CONFIGURATION: u8 = 0x20;
const WRITE_CONFIGURATION: u8 = 0x60;
const DISABLE_MOUSE: u8 = 0xa7;
const DISABLE_KEYBOARD: u8 = 0xad;
const ENABLE_KEYBOARD: u8 = 0xae;

// Configuration bits.
const KEYBOARD_INTERRUPT: u8 = 1 << 0;
const MOUSE_INTERRUPT: u8 = 1 << 1;
const KEYBOARD_OFF: u8 = 1 << 4;
const MOUSE_OFF: u8 = 1 << 5;
const TRANSLATE: u8 = 1 << 6;

/// Command to the keyboard: send scan codes.
const ENABLE_SCANNING: u8 = 0xf4;
/// Its answer to a command.
const ACKNOWLEDGE: u8 = 0xfa;

/// Why there is no keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nothing answers at the ports.
    Absent,
    /// The controller did not do something in time.
    Silent(&'static str),
}

/// A keyboard that interrupts when a key is pressed or released.
#[derive(Debug)]
pub struct Keyboard {
    ports: Ports,
}

#[derive(Debug)]
struct Ports;

impl Ports {
    fn status(&self) -> u8 {
        // SAFETY: `start`'s caller vouches for the ports; no register of the device reaches memory.
        unsafe { Port::new(STATUS).read() }
    }

    fn data(&self) -> u8 {
        // SAFETY: as above.
        unsafe { Port::new(DATA).read() }
    }

    /// Writes when the controller is ready for it; false when it was not in time.
    fn write(&self, port: u16, value: u8, late: &mut dyn FnMut() -> bool) -> bool {
        while self.status() & INPUT_FULL != 0 {
            if late() {
                return false;
            }
            core::hint::spin_loop();
        }
        // SAFETY: as above.
        unsafe { Port::new(port).write(value) };
        true
    }

    /// The controller's next answer.
    fn read(&self, late: &mut dyn FnMut() -> bool) -> Option<u8> {
        while self.status() & OUTPUT_FULL == 0 {
            if late() {
                return None;
            }
            core::hint::spin_loop();
        }
        Some(self.data())
    }

    /// Throws away what waits to be read: the controller keeps few bytes.
    fn empty(&self) {
        for _ in 0..64 {
            if self.status() & OUTPUT_FULL == 0 {
                return;
            }
            self.data();
        }
    }
}

impl Keyboard {
    /// Sets the controller and its keyboard up. `late` says when the time for all of that is over. A keyboard that does not
    /// acknowledge is used all the same: it may be plugged in later.
    ///
    /// # Safety
    /// Nothing else than a keyboard controller, or nothing at all, answers at the ports 0x60 and 0x64, and nobody else uses them.
    pub unsafe fn start(late: &mut dyn FnMut() -> bool) -> Result<Self, Problem> {
        let ports = Ports;
        if ports.status() == FLOATING {
            return Err(Problem::Absent);
        }
        let silent = |done: bool, what| done.then_some(()).ok_or(Problem::Silent(what));
        // Off, so that no key's byte is taken for an answer.
        for command in [DISABLE_KEYBOARD, DISABLE_MOUSE] {
            silent(
                ports.write(STATUS, command, late),
                "switch the keyboard off",
            )?;
        }
        ports.empty();
        silent(
            ports.write(STATUS, READ_CONFIGURATION, late),
            "take a command",
        )?;
        let former = ports
            .read(late)
            .ok_or(Problem::Silent("tell its configuration"))?;
        let wanted = (former | KEYBOARD_INTERRUPT | TRANSLATE | MOUSE_OFF)
            & !(MOUSE_INTERRUPT | KEYBOARD_OFF);
        silent(
            ports.write(STATUS, WRITE_CONFIGURATION, late) && ports.write(DATA, wanted, late),
            "take its configuration",
        )?;
        silent(
            ports.write(STATUS, ENABLE_KEYBOARD, late),
            "switch the keyboard on",
        )?;
        silent(
            ports.write(DATA, ENABLE_SCANNING, late),
            "pass a byte to the keyboard",
        )?;
        while ports.read(late).is_some_and(|answer| answer != ACKNOWLEDGE) {}
        Ok(Self { ports })
    }

    /// The next byte of a scan code, if there is one.
    pub fn receive(&mut self) -> Option<u8> {
        loop {
            let status = self.ports.status();
            if status & OUTPUT_FULL == 0 || status == FLOATING {
                return None;
            }
            let byte = self.ports.data();
            if status & FROM_MOUSE == 0 {
                return Some(byte);
            }
        }
    }
}
