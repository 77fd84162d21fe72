//! Standard input: received by interrupt, decoded, and kept in a ring until a program reads it.
//!
//! All interrupts of the ports, the console and the keyboard go to core 0, so their handler is the ring's one producer. When the ring is full
//! the rest stays where it is (the port's interrupt switched off, or the console's buffers not given back), which holds the
//! sender back; a read that makes room has core 0 look again. A cancel behind unread input then waits too, so one on the
//! second port is heard as well.

use super::{
    LOG, PROGRAM,
    escape::{Decoder, Event},
    ring::Ring,
    typing::{Typed, Typing},
};
use crate::{
    cpu::{local, vector},
    screen,
};
use core::{
    cell::UnsafeCell,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};
use drivers::{keyboard::Keyboard, virtio};
use smp::platform::Input;
use spin::Mutex;
use x86_64::instructions::interrupts;

/// Input that has arrived and has not been read.
static RING: Ring<65536> = Ring::new();
/// Held by whoever reads.
static READER: Mutex<()> = Mutex::new(());
static ENDED: AtomicBool = AtomicBool::new(false);
/// There is somebody to tell of input: before, it stays where it is.
static STARTED: AtomicBool = AtomicBool::new(false);
/// Input is held back because the ring is full.
static HELD_BACK: AtomicBool = AtomicBool::new(false);

/// What only the interrupt handler uses.
struct Producer {
    /// Decodes what the first port or the console receives.
    program: Decoder,
    /// Decodes what the second port receives.
    log: Decoder,
    /// The console, which then receives instead of the first port.
    console: Option<virtio::Receiver>,
    /// A keyboard, and what has been typed at it.
    keyboard: Option<Keyboard>,
    typing: Typing,
}

struct ProducerCell(UnsafeCell<Producer>);

// SAFETY: used on core 0 with interrupts off (`receive_from`, `type_at`, `interrupt`), so never twice at once.
unsafe impl Sync for ProducerCell {}

static PRODUCER: ProducerCell = ProducerCell(UnsafeCell::new(Producer {
    program: Decoder::new(),
    log: Decoder::new(),
    console: None,
    keyboard: None,
    typing: Typing::new(),
}));

static ON_INPUT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static ON_CANCEL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets what to call, in an interrupt handler on core 0, when input has arrived or has ended, and when the program is to be
/// cancelled. Before [`start`].
pub fn on_events(input: fn(), cancel: fn()) {
    ON_INPUT.store(input as *mut (), Ordering::Release);
    ON_CANCEL.store(cancel as *mut (), Ordering::Release);
}

fn call(hook: &AtomicPtr<()>) {
    let hook = hook.load(Ordering::Acquire);
    if !hook.is_null() {
        // SAFETY: only `on_events` stores here, and only such functions.
        let hook = unsafe { core::mem::transmute::<*mut (), fn()>(hook) };
        hook();
    }
}

/// Takes input from the console instead of the first port. On core 0, with interrupts off, before [`start`].
pub(super) fn receive_from(console: virtio::Receiver) {
    debug_assert!(!interrupts::are_enabled());
    // SAFETY: core 0 with interrupts off.
    unsafe { (*PRODUCER.0.get()).console = Some(console) };
}

/// Takes what is typed at a keyboard as input, too. On core 0, with interrupts off, before [`start`].
pub(crate) fn type_at(keyboard: Keyboard) {
    debug_assert!(!interrupts::are_enabled());
    // SAFETY: core 0 with interrupts off.
    unsafe { (*PRODUCER.0.get()).keyboard = Some(keyboard) };
}

/// Lets the ports interrupt when they have received something, and takes what has come so far. On core 0; the lines are
/// routed there.
pub(crate) fn start() {
    interrupts::without_interrupts(|| {
        STARTED.store(true, Ordering::Relaxed);
        LOG.set_receive_interrupt(true);
        PROGRAM.set_receive_interrupt(true);
        interrupt();
    });
}

/// Takes what has been received. Called on core 0 alone, with interrupts off.
pub(crate) fn interrupt() {
    if !STARTED.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: core 0 with interrupts off.
    let producer = unsafe { &mut *PRODUCER.0.get() };
    let mut arrived = false;
    let mut cancelled = false;
    loop {
        // Each byte received needs room for at most one in the ring.
        if RING.space() == 0 && hold_back() {
            break;
        }
        let received = match &mut producer.console {
            Some(console) => console.receive(),
            None => PROGRAM.receive(),
        };
        let Some(byte) = received else { break };
        match producer.program.next(byte) {
            Event::None => {}
            Event::Byte(byte) => {
                // SAFETY: this handler is the one producer.
                let put = unsafe { RING.put(byte) };
                debug_assert!(put, "there was room");
                arrived = true;
            }
            Event::End => {
                ENDED.store(true, Ordering::Release);
                arrived = true;
            }
            Event::Cancel => cancelled = true,
        }
    }
    // Bounded, so that a port that always has something cannot hold the core.
    for _ in 0..64 {
        let Some(byte) = LOG.receive() else { break };
        cancelled |= producer.log.next(byte) == Event::Cancel;
    }
    for _ in 0..64 {
        let Some(byte) = producer.keyboard.as_mut().and_then(Keyboard::receive) else {
            break;
        };
        match producer.typing.byte(byte, &mut screen::echo) {
            Typed::Nothing => {}
            Typed::Line => {
                // A line that finds no room is lost: nobody reads what is typed.
                if RING.space() >= producer.typing.line().len() {
                    for &byte in producer.typing.line() {
                        // SAFETY: this handler is the one producer.
                        unsafe { RING.put(byte) };
                    }
                    arrived = true;
                }
                producer.typing.take();
            }
            Typed::End => {
                ENDED.store(true, Ordering::Release);
                arrived = true;
            }
            Typed::Cancel => cancelled = true,
        }
    }
    if arrived {
        call(&ON_INPUT);
    }
    if cancelled {
        call(&ON_CANCEL);
    }
}

/// Notes that input is held back because the ring is full; false when a reader has made room meanwhile.
fn hold_back() -> bool {
    PROGRAM.set_receive_interrupt(false);
    HELD_BACK.store(true, Ordering::SeqCst);
    // A reader that took bytes before that store did not see it. Whoever takes the flag back goes on receiving.
    if RING.space() > 0 && HELD_BACK.swap(false, Ordering::SeqCst) {
        PROGRAM.set_receive_interrupt(true);
        return false;
    }
    true
}

/// Reads what there is; see [`smp::platform::Platform::read`].
pub fn read(buffer: &mut [u8]) -> Input {
    let _guard = READER.lock();
    // Before the ring is looked at: the end is announced after the last byte was put.
    let ended = ENDED.load(Ordering::Acquire);
    // SAFETY: the lock keeps other readers out.
    let count = unsafe { RING.take(buffer) };
    // What was taken comes before the look at the flag, as in `hold_back` the flag before the look at the space.
    core::sync::atomic::fence(Ordering::SeqCst);
    if count > 0 && HELD_BACK.swap(false, Ordering::SeqCst) {
        PROGRAM.set_receive_interrupt(true);
        let core0 = local::all()[0].apic_id();
        interrupts::without_interrupts(|| {
            local::current().with_apic(|apic| {
                // SAFETY: core 0 has the handler.
                unsafe { apic.send_ipi(core0, vector::CONSOLE) }
            })
        });
    }
    match count {
        0 if ended => Input::End,
        0 => Input::Pending,
        count => Input::Bytes(count),
    }
}
