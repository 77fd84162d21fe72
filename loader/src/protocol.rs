//! The Limine boot protocol's structures and numbers, as its specification gives them ("Feature List"). All pointers are
//! virtual addresses in the higher-half direct map, held as plain 64-bit numbers.

use core::sync::atomic::{AtomicU32, AtomicU64};

/// Where the loader puts the higher-half direct map: the lowest address of the upper half with four-level paging.
pub const HHDM: u64 = 0xffff_8000_0000_0000;

/// What a kernel can ask for and this loader gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is the feature of that name in the specification"
)]
pub enum Feature {
    BootloaderInfo,
    FirmwareType,
    StackSize,
    Hhdm,
    Framebuffer,
    PagingMode,
    Mp,
    MemoryMap,
    EntryPoint,
    ExecutableFile,
    Module,
    Rsdp,
    DateAtBoot,
    ExecutableAddress,
    ExecutableCommandLine,
}

impl Feature {
    /// All of them, each at the index that is its number.
    pub const ALL: &[Feature; 15] = &[
        Feature::BootloaderInfo,
        Feature::FirmwareType,
        Feature::StackSize,
        Feature::Hhdm,
        Feature::Framebuffer,
        Feature::PagingMode,
        Feature::Mp,
        Feature::MemoryMap,
        Feature::EntryPoint,
        Feature::ExecutableFile,
        Feature::Module,
        Feature::Rsdp,
        Feature::DateAtBoot,
        Feature::ExecutableAddress,
        Feature::ExecutableCommandLine,
    ];

    /// The third and fourth word of the request's id; the first two are common to all.
    pub const fn id(self) -> [u64; 2] {
        match self {
            Feature::BootloaderInfo => [0xf550_38d8_e2a1_202f, 0x2794_26fc_f5f5_9740],
            Feature::FirmwareType => [0x8c2f_75d9_0bef_28a8, 0x7045_a468_8eac_00c3],
            Feature::StackSize => [0x224e_f046_0a8e_8926, 0xe1cb_0fc2_5f46_ea3d],
            Feature::Hhdm => [0x48dc_f1cb_8ad2_b852, 0x6398_4e95_9a98_244b],
            Feature::Framebuffer => [0x9d58_27dc_d881_dd75, 0xa314_8604_f6fa_b11b],
            Feature::PagingMode => [0x95c1_a0ed_ab09_44cb, 0xa4e5_cb38_42f7_488a],
            Feature::Mp => [0x95a6_7b81_9a1b_857e, 0xa0b6_1b72_3b6a_73e0],
            Feature::MemoryMap => [0x67cf_3d9d_378a_806f, 0xe304_acdf_c50c_3c62],
            Feature::EntryPoint => [0x13d8_6c03_5a1c_d3e1, 0x2b0c_aa89_d8f3_026a],
            Feature::ExecutableFile => [0xad97_e90e_83f1_ed67, 0x31eb_5d1c_5ff2_3b69],
            Feature::Module => [0x3e7e_2797_02be_32af, 0xca1c_4f3b_d128_0cee],
            Feature::Rsdp => [0xc5e7_7b6b_397e_7b43, 0x2763_7845_accd_cf3c],
            Feature::DateAtBoot => [0x5027_46e1_84c0_88aa, 0xfbc5_ec83_e632_7893],
            Feature::ExecutableAddress => [0x71ba_7686_3cc5_5f63, 0xb264_4a48_c516_a487],
            Feature::ExecutableCommandLine => [0x4b16_1536_e598_651e, 0xb390_ad4a_2f1f_303a],
        }
    }

    /// How many words of its own the request has in this revision, of those that the loader reads.
    pub const fn request_words(self, revision: u64) -> usize {
        match self {
            Feature::StackSize | Feature::Mp | Feature::EntryPoint => 1,
            Feature::PagingMode if revision >= 1 => 3,
            Feature::PagingMode => 1,
            _ => 0,
        }
    }
}

/// "Bootloader Info Feature".
#[derive(Debug)]
#[repr(C)]
pub struct BootloaderInfo {
    /// Always 0.
    pub revision: u64,
    /// A string that ends in a zero.
    pub name: u64,
    /// A string that ends in a zero.
    pub version: u64,
}

/// A response that is one number: "Firmware Type" (0 = BIOS), "HHDM" (the offset), "Paging Mode" (0 = four levels), "RSDP"
/// (its address, physical in base revision 3), "Date at Boot" (Unix time), "Executable Command Line" (a string).
#[derive(Debug)]
#[repr(C)]
pub struct Number {
    /// Always 0.
    pub revision: u64,
    /// The number.
    pub value: u64,
}

/// A response that says only that the request was honoured: "Stack Size", "Entry Point".
#[derive(Debug)]
#[repr(C)]
pub struct Honoured {
    /// Always 0.
    pub revision: u64,
}

/// A response that is an array of pointers: "Framebuffer" (revision 1), "Memory Map", "Module".
#[derive(Debug)]
#[repr(C)]
pub struct Pointers {
    /// The response's revision.
    pub revision: u64,
    /// How many.
    pub count: u64,
    /// Where the pointers are.
    pub pointers: u64,
}

/// "Executable Address Feature".
#[derive(Debug)]
#[repr(C)]
pub struct ExecutableAddress {
    /// Always 0.
    pub revision: u64,
    /// Where the image's first page is in memory.
    pub physical_base: u64,
    /// Where it is mapped.
    pub virtual_base: u64,
}

/// An entry of "Memory Map Feature".
#[derive(Debug)]
#[repr(C)]
pub struct MemoryMapEntry {
    /// First byte.
    pub base: u64,
    /// Bytes.
    pub length: u64,
    /// A [`crate::memory_map::Kind`].
    pub kind: u64,
}

/// "File Structure". The parts that tell of disks and networks are zero: the file came with the loader.
#[derive(Debug)]
#[repr(C)]
pub struct File {
    /// Always 0.
    pub revision: u64,
    /// First byte, on a page boundary.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// A string that ends in a zero, with a leading slash.
    pub path: u64,
    /// A string that ends in a zero.
    pub command_line: u64,
    /// 0 = generic.
    pub media_type: u32,
    /// Padding, TFTP address and port, partition, MBR id.
    pub unused: [u32; 5],
    /// Three UUIDs: of the disk, its partition, the file system.
    pub uuids: [[u32; 4]; 3],
}

/// "Framebuffer Feature", with the members of response revision 1.
#[derive(Debug)]
#[repr(C)]
pub struct Framebuffer {
    /// First pixel, in the direct map.
    pub address: u64,
    /// Pixels in a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// Bytes from row to row.
    pub pitch: u64,
    /// The pixels' format.
    pub format: PixelFormat,
    /// Zero.
    pub unused: [u8; 6],
    /// 0: none is given.
    pub edid_size: u64,
    /// Null.
    pub edid: u64,
    /// How many modes there are to tell of.
    pub mode_count: u64,
    /// Where the pointers to them are.
    pub modes: u64,
}

/// A mode in "Framebuffer Feature".
#[derive(Debug)]
#[repr(C)]
pub struct VideoMode {
    /// Bytes from row to row.
    pub pitch: u64,
    /// Pixels in a row.
    pub width: u64,
    /// Rows.
    pub height: u64,
    /// The pixels' format.
    pub format: PixelFormat,
}

/// How a pixel is made up.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct PixelFormat {
    /// Bits in a pixel.
    pub bits: u16,
    /// 1 = RGB.
    pub memory_model: u8,
    /// Size and shift of the red, green and blue parts, in bits.
    pub masks: [u8; 6],
    /// Zero.
    pub unused: u8,
}

impl PixelFormat {
    /// 32 bits: blue in the lowest byte, then green, then red.
    pub const XRGB: PixelFormat = PixelFormat {
        bits: 32,
        memory_model: 1,
        masks: [8, 16, 8, 8, 8, 0],
        unused: 0,
    };
}

/// The response of "MP Feature", x86-64.
#[derive(Debug)]
#[repr(C)]
pub struct Mp {
    /// Always 0.
    pub revision: u64,
    /// Bit 0: x2APIC has been enabled.
    pub flags: u32,
    /// The boot processor's local APIC id.
    pub bsp_lapic_id: u32,
    /// How many cores, the boot processor included.
    pub count: u64,
    /// Where the pointers to their [`MpInfo`]s are.
    pub pointers: u64,
}

/// A core in "MP Feature", x86-64.
#[derive(Debug)]
#[repr(C)]
pub struct MpInfo {
    /// ACPI's processor UID.
    pub processor_id: u32,
    /// The local APIC id.
    pub lapic_id: u32,
    /// Zero.
    pub reserved: u64,
    /// Where the core is to go; 0 until the kernel says.
    pub goto_address: AtomicU64,
    /// The kernel's.
    pub extra_argument: AtomicU64,
}

/// What the loader keeps of a core. The kernel sees only the first member.
#[derive(Debug)]
#[repr(C)]
pub struct Core {
    /// The kernel's part.
    pub info: MpInfo,
    /// The end of the core's stack, a virtual address in the direct map.
    pub stack_end: u64,
    /// Whether the core has answered: one of [`ABSENT`], [`PRESENT`], [`GIVEN_UP`].
    pub state: AtomicU32,
    /// Keeps the size a multiple of eight without padding.
    pub unused: u32,
}

/// [`Core::state`]: nothing heard yet.
pub const ABSENT: u32 = 0;
/// [`Core::state`]: the core itself has said that it runs.
pub const PRESENT: u32 = 1;
/// [`Core::state`]: the boot processor waits no longer; the core must halt if it comes after all.
pub const GIVEN_UP: u32 = 2;

// Offsets that start.s knows by number, and sizes that the kernel relies on.
const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<Core>() == 48);
    assert!(offset_of!(Core, info) == 0);
    assert!(offset_of!(Core, stack_end) == 32);
    assert!(offset_of!(MpInfo, lapic_id) == 4);
    assert!(offset_of!(MpInfo, goto_address) == 16);
    assert!(size_of::<File>() == 112);
    assert!(size_of::<Framebuffer>() == 80);
    assert!(offset_of!(Framebuffer, edid_size) == 48);
    assert!(size_of::<VideoMode>() == 40);
    assert!(size_of::<MemoryMapEntry>() == 24);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_at_their_numbers_and_have_ids_of_their_own() {
        for (index, feature) in Feature::ALL.iter().enumerate() {
            assert_eq!(*feature as usize, index);
            let same = Feature::ALL
                .iter()
                .filter(|other| other.id() == feature.id())
                .count();
            assert_eq!(same, 1, "{feature:?}");
        }
    }
}
