//! The two 8259 interrupt controllers, which are only ever switched off: interrupts come through the I/O APIC.

use x86_64::instructions::port::Port;

/// Masks every line of both controllers, after moving their vectors out of the exceptions' range, so that a spurious
/// interrupt that was already on its way is not taken for a fault (Intel 8259A data sheet, ICW1 to ICW4, OCW1).
///
/// `vector` is where the sixteen lines go, a multiple of 8.
///
/// # Safety
/// Interrupts are off, and nothing else uses the controllers.
pub unsafe fn disable(vector: u8) {
    let mut master = [Port::<u8>::new(0x20), Port::<u8>::new(0x21)];
    let mut slave = [Port::<u8>::new(0xa0), Port::<u8>::new(0xa1)];
    // Port 0x80 takes POST codes and serves as the customary delay that old controllers need between commands.
    let mut delay = Port::<u8>::new(0x80);
    let mut write = |port: &mut Port<u8>, value: u8| {
        // SAFETY: the standard PC ports of the controllers; the caller says that nobody else uses them.
        unsafe {
            port.write(value);
            delay.write(0);
        }
    };
    for (chip, offset, wiring) in [(&mut master, 0, 4), (&mut slave, 8, 2)] {
        write(&mut chip[0], 0x11); // ICW1: initialise, ICW4 follows
        write(&mut chip[1], vector + offset); // ICW2: vectors
        write(&mut chip[1], wiring); // ICW3: the slave hangs on line 2
        write(&mut chip[1], 0x01); // ICW4: 8086 mode
        write(&mut chip[1], 0xff); // OCW1: all lines masked
    }
}
