//! The crate `acpi`'s layouts of tables and records, laid over bytes whose length was checked.

use acpi::{
    rsdp::Rsdp,
    sdt::{
        SdtHeader,
        fadt::Fadt,
        hpet::HpetTable,
        madt::{
            EntryHeader, InterruptSourceOverrideEntry, IoApicEntry, LocalApicEntry,
            LocalX2ApicEntry, Madt,
        },
    },
};
use core::mem::{MaybeUninit, align_of, size_of};

/// A layout that any bytes have.
///
/// # Safety
/// The type is packed, so that it may lie anywhere, and has integers only, so that every value of its bytes is one of its own.
pub(super) unsafe trait Layout {}

macro_rules! layouts {
    ($($type:ty),* $(,)?) => { $(
        const _: () = assert!(align_of::<$type>() == 1);
        // SAFETY: packed, as just asserted, and of integers.
        unsafe impl Layout for $type {}
    )* };
}

layouts!(
    Rsdp,
    SdtHeader,
    Fadt,
    HpetTable,
    Madt,
    EntryHeader,
    LocalApicEntry,
    LocalX2ApicEntry,
    IoApicEntry,
    InterruptSourceOverrideEntry,
);

/// The beginning of `bytes` as a `T`, if there are enough of them.
pub(super) fn view<T: Layout>(bytes: &[u8]) -> Option<&T> {
    // SAFETY: enough bytes, which live as long as the result, and any bytes anywhere are a `T`.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { &*bytes.as_ptr().cast::<T>() })
}

/// The beginning of `bytes` as a `T`, with zeroes for what they lack: older tables are shorter.
pub(super) fn padded<T: Layout>(bytes: &[u8]) -> T {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: no more bytes than the value has, and any bytes are a `T`.
    unsafe {
        let count = bytes.len().min(size_of::<T>());
        value
            .as_mut_ptr()
            .cast::<u8>()
            .copy_from_nonoverlapping(bytes.as_ptr(), count);
        value.assume_init()
    }
}
