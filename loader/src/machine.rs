//! The PC around the processor: interrupt controllers, the real-time clock, a timer to wait by, the way to stop.

use crate::{log, memory};
use core::fmt;
use loader::{
    acpi::Device,
    calendar::{self, ClockRegisters},
};
use x86_64::instructions::{hlt, interrupts, port::Port};

/// Status with which the machine stops after an error: the same as a kernel panic's.
const FAILED: u8 = 101;

/// Says what is wrong and stops for good: through QEMU's `isa-debug-exit` where there is one, else by halting.
pub fn stop(message: fmt::Arguments<'_>) -> ! {
    log::line(message);
    output(0xf4, FAILED);
    loop {
        interrupts::disable();
        hlt();
    }
}

fn output(port: u16, value: u8) {
    // SAFETY: the loader owns every device, and none of those written to from here touches memory.
    unsafe { Port::new(port).write(value) }
}

fn input(port: u16) -> u8 {
    // SAFETY: as in `output`.
    unsafe { Port::new(port).read() }
}

/// Masks every line of both 8259 interrupt controllers.
pub fn mask_pic() {
    output(0x21, 0xff);
    output(0xa1, 0xff);
}

/// Masks the inputs of an IO APIC whose delivery mode is fixed or lowest priority (82093AA data sheet, 3.2).
pub fn mask_io_apic(device: Device) {
    const VERSION: u32 = 1;
    const MASKED: u32 = 1 << 16;
    let Device::IoApic { address } = device else {
        return;
    };
    let window = memory::pointer::<u32>(u64::from(address));
    let access = |register: u32, value: Option<u32>| -> u32 {
        // SAFETY: the MADT gives this address as an IO APIC's registers, the early tables map the first 4 GiB, and the
        // firmware's MTRRs keep device memory uncached. Offset 0 selects the register, offset 0x10 holds it.
        unsafe {
            window.write_volatile(register);
            let data = window.add(4);
            if let Some(value) = value {
                data.write_volatile(value);
            }
            data.read_volatile()
        }
    };
    let last = (access(VERSION, None) >> 16) & 0xff;
    for input in 0..=last {
        let low = 0x10 + 2 * input;
        let entry = access(low, None);
        if (entry >> 8) & 7 <= 1 {
            access(low, Some(entry | MASKED));
        }
    }
}

/// The time in seconds since 1970, from the CMOS clock; `None` if it holds none, or never comes to rest.
pub fn unix_time() -> Option<i64> {
    let register = |index: u8| {
        // Bit 7 of the index port would mask NMIs; it stays clear.
        output(0x70, index);
        input(0x71)
    };
    let registers = || ClockRegisters {
        second: register(0x00),
        minute: register(0x02),
        hour: register(0x04),
        day: register(0x07),
        month: register(0x08),
        year: register(0x09),
        century: register(0x32),
        format: register(0x0b),
    };
    const UPDATING: u8 = 0x80;
    // Two equal readings between which no update ran are one time.
    (0..1000).find_map(|_| {
        let quiet = || register(0x0a) & UPDATING == 0;
        let first = quiet().then(registers)?;
        let second = quiet().then(registers)?;
        (first == second)
            .then(|| calendar::unix_time(&first))
            .flatten()
    })
}

/// Channel 2 of the 8254 timer, which counts down once and shows at port 0x61 that it has: a clock that needs neither
/// interrupts nor calibration.
pub struct Countdown(());

impl Countdown {
    /// The timer's frequency in Hz.
    const FREQUENCY: u64 = 1_193_182;

    /// Starts to count `microseconds`, at most 54,000.
    pub fn start(microseconds: u32) -> Countdown {
        let ticks = (u64::from(microseconds) * Self::FREQUENCY / 1_000_000).clamp(1, 0xffff) as u16;
        let [low, high] = ticks.to_le_bytes();
        // Gate off and speaker off, channel 2 in mode 0 with both bytes, gate on: counting begins.
        output(0x61, input(0x61) & !0x03);
        output(0x43, 0xb0);
        output(0x42, low);
        output(0x42, high);
        output(0x61, (input(0x61) & !0x02) | 0x01);
        Countdown(())
    }

    /// True once the time has passed.
    pub fn is_over(&self) -> bool {
        input(0x61) & 0x20 != 0
    }

    /// Waits for `microseconds`, at most 54,000.
    pub fn wait(microseconds: u32) {
        let countdown = Countdown::start(microseconds);
        while !countdown.is_over() {
            core::hint::spin_loop();
        }
    }
}
