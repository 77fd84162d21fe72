//! Standard input: received by interrupt, decoded, and kept in a ring until a program reads it.
//!
//! Both ports' interrupts go to core 0, so their handler is the ring's one producer. When the ring is full the first
//! port's receive interrupt is switched off and its FIFO fills up, which holds the sender back; a read that makes room
//! switches it on again. A cancel behind unread input then waits too, so one on the second port is heard as well.

use super::{
    LOG, PROGRAM,
    escape::{Decoder, Event},
    ring::Ring,
};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, Ordering};
use smp::platform::Input;
use spin::Mutex;

/// Input that has arrived and has not been read.
static RING: Ring<65536> = Ring::new();
/// Held by whoever reads.
static READER: Mutex<()> = Mutex::new(());
static ENDED: AtomicBool = AtomicBool::new(false);
/// The first port's receive interrupt is off because the ring is full.
static HELD_BACK: AtomicBool = AtomicBool::new(false);
/// The decoders' states between interrupts: whether the last byte was a DLE. Bit 0: first port, bit 1: second.
static ESCAPED: AtomicU8 = AtomicU8::new(0);

static ON_INPUT: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static ON_CANCEL: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sets what to call, in an interrupt handler on core 0, when input has arrived or has ended, and when the program is to be cancelled.
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

/// Lets the ports interrupt when they have received something. Their lines are routed to core 0.
pub(crate) fn start() {
    LOG.set_receive_interrupt(true);
    PROGRAM.set_receive_interrupt(true);
}

/// Takes what the ports have received. Called on core 0 alone, with interrupts off.
pub(crate) fn interrupt() {
    let mut arrived = false;
    let mut cancelled = false;
    let mut escaped = ESCAPED.load(Ordering::Relaxed);
    let mut decoder = Decoder::resume(escaped & 1 != 0);
    // Each byte received needs room for at most one in the ring.
    loop {
        if RING.space() == 0 {
            if hold_back() {
                break;
            }
            continue;
        }
        let Some(byte) = PROGRAM.receive() else { break };
        match decoder.next(byte) {
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
    escaped = u8::from(decoder.is_escaped()) | escaped & 2;
    let mut decoder = Decoder::resume(escaped & 2 != 0);
    // Bounded, so that a port that always has something cannot hold the core.
    for _ in 0..64 {
        let Some(byte) = LOG.receive() else { break };
        cancelled |= decoder.next(byte) == Event::Cancel;
    }
    escaped = u8::from(decoder.is_escaped()) << 1 | escaped & 1;
    ESCAPED.store(escaped, Ordering::Relaxed);
    if arrived {
        call(&ON_INPUT);
    }
    if cancelled {
        call(&ON_CANCEL);
    }
}

/// Switches the receive interrupt off because the ring is full; false when a reader has made room meanwhile.
fn hold_back() -> bool {
    PROGRAM.set_receive_interrupt(false);
    HELD_BACK.store(true, Ordering::SeqCst);
    // A reader that took bytes before that store did not see it; whoever takes the flag back switches the interrupt on.
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
    core::sync::atomic::fence(Ordering::SeqCst);
    if count > 0 && HELD_BACK.swap(false, Ordering::SeqCst) {
        PROGRAM.set_receive_interrupt(true);
    }
    match count {
        0 if ended => Input::End,
        0 => Input::Pending,
        count => Input::Bytes(count),
    }
}
