//! Answers to the kernel's requests, laid out in memory that the kernel may reclaim.

use crate::{cores::Cores, display::Display, memory::Memory};
use loader::{
    memory_map::{CAPACITY, Error, MemoryMap},
    protocol::{
        BootloaderInfo, ExecutableAddress, Feature, File, Framebuffer, HHDM, Honoured,
        MemoryMapEntry, Mp, Number, PixelFormat, Pointers, VideoMode,
    },
    requests::Requests,
};

/// The kernel's requests, and the image that they lie in.
pub struct Answers<'i> {
    /// Where they are.
    pub requests: Requests,
    /// The image's words as the requests index them.
    pub image: &'i mut [u64],
}

/// The address of an object in the direct map.
fn address<T: ?Sized>(object: &T) -> u64 {
    (&raw const *object).cast::<u8>() as u64
}

/// Copies a string and gives its address. It ends in a zero, or gets one.
pub fn text(memory: &mut Memory, bytes: &[u8]) -> Result<u64, Error> {
    let byte = |index| bytes.get(index).copied().unwrap_or(0);
    Ok(address(memory.place_all(bytes.len() + 1, byte)?))
}

impl Answers<'_> {
    fn put<T: 'static>(
        &mut self,
        memory: &mut Memory,
        feature: Feature,
        response: T,
    ) -> Result<(), Error> {
        if self.requests.has(feature) {
            let response = address(memory.place(response)?);
            self.requests.answer(self.image, feature, response);
        }
        Ok(())
    }

    fn number(&mut self, memory: &mut Memory, feature: Feature, value: u64) -> Result<(), Error> {
        self.put(memory, feature, Number { revision: 0, value })
    }

    /// The features whose answers depend on nothing: who loads, from what firmware, the direct map, the paging mode (four
    /// levels), that stack size and entry point are honoured.
    pub fn constants(&mut self, memory: &mut Memory) -> Result<(), Error> {
        const X86_BIOS: u64 = 0;
        const FOUR_LEVELS: u64 = 0;
        let name = text(memory, b"Viridis direct loader")?;
        let version = text(memory, env!("CARGO_PKG_VERSION").as_bytes())?;
        self.put(
            memory,
            Feature::BootloaderInfo,
            BootloaderInfo {
                revision: 0,
                name,
                version,
            },
        )?;
        self.number(memory, Feature::FirmwareType, X86_BIOS)?;
        self.number(memory, Feature::Hhdm, HHDM)?;
        self.number(memory, Feature::PagingMode, FOUR_LEVELS)?;
        self.put(memory, Feature::StackSize, Honoured { revision: 0 })?;
        self.put(memory, Feature::EntryPoint, Honoured { revision: 0 })
    }

    /// Where the kernel is.
    pub fn executable_address(
        &mut self,
        memory: &mut Memory,
        physical_base: u64,
        virtual_base: u64,
    ) -> Result<(), Error> {
        let response = ExecutableAddress {
            revision: 0,
            physical_base,
            virtual_base,
        };
        self.put(memory, Feature::ExecutableAddress, response)
    }

    /// The kernel's command line, a string's address.
    pub fn command_line(&mut self, memory: &mut Memory, line: u64) -> Result<(), Error> {
        self.number(memory, Feature::ExecutableCommandLine, line)
    }

    /// The kernel's file.
    pub fn executable_file(&mut self, memory: &mut Memory, file: File) -> Result<(), Error> {
        let file = address(memory.place(file)?);
        self.number(memory, Feature::ExecutableFile, file)
    }

    /// The modules: the addresses of their [`File`]s.
    pub fn modules(&mut self, memory: &mut Memory, files: &'static [u64]) -> Result<(), Error> {
        let response = Pointers {
            revision: 0,
            count: files.len() as u64,
            pointers: address(files),
        };
        self.put(memory, Feature::Module, response)
    }

    /// ACPI's root pointer at a physical address; in base revision 3 it is handed on as such.
    pub fn rsdp(&mut self, memory: &mut Memory, physical: u64) -> Result<(), Error> {
        let offset = if self.requests.base_revision == 3 {
            0
        } else {
            HHDM
        };
        self.number(memory, Feature::Rsdp, physical + offset)
    }

    /// The Unix time.
    pub fn date(&mut self, memory: &mut Memory, time: i64) -> Result<(), Error> {
        self.number(memory, Feature::DateAtBoot, time as u64)
    }

    /// The framebuffer, with its one mode.
    pub fn framebuffer(&mut self, memory: &mut Memory, display: &Display) -> Result<(), Error> {
        let Display {
            base,
            width,
            height,
        } = *display;
        let (pitch, format) = (display.pitch(), PixelFormat::XRGB);
        let mode = address(memory.place(VideoMode {
            pitch,
            width,
            height,
            format,
        })?);
        let modes = address(memory.place(mode)?);
        let framebuffer = address(memory.place(Framebuffer {
            address: HHDM + base,
            width,
            height,
            pitch,
            format,
            unused: [0; 6],
            edid_size: 0,
            edid: 0,
            mode_count: 1,
            modes,
        })?);
        let pointers = address(memory.place(framebuffer)?);
        self.put(
            memory,
            Feature::Framebuffer,
            Pointers {
                revision: 1,
                count: 1,
                pointers,
            },
        )
    }

    /// The cores that answered.
    pub fn cores(&mut self, memory: &mut Memory, cores: &Cores) -> Result<(), Error> {
        let mut present = cores.present().map(|core| address(&core.info));
        let count = cores.present().count();
        let pointers = address(memory.place_all(count, |_| present.next().unwrap_or_default())?);
        let response = Mp {
            revision: 0,
            flags: u32::from(cores.x2apic()),
            bsp_lapic_id: cores.own_id(),
            count: count as u64,
            pointers,
        };
        self.put(memory, Feature::Mp, response)
    }
}

/// Room for the memory map's answer, taken while memory can still be taken: filling it changes the map no more.
pub struct MemoryMapAnswer {
    entries: &'static mut [MemoryMapEntry],
    pointers: &'static mut [u64],
    response: &'static mut Pointers,
}

impl MemoryMapAnswer {
    /// Takes the room.
    pub fn new(memory: &mut Memory) -> Result<MemoryMapAnswer, Error> {
        Ok(MemoryMapAnswer {
            entries: memory.place_all(CAPACITY, |_| MemoryMapEntry {
                base: 0,
                length: 0,
                kind: 0,
            })?,
            pointers: memory.place_all(CAPACITY, |_| 0)?,
            response: memory.place(Pointers {
                revision: 0,
                count: 0,
                pointers: 0,
            })?,
        })
    }

    /// Writes the map down and answers the request.
    pub fn fill(self, map: &MemoryMap, answers: &mut Answers<'_>) {
        let regions = map.regions();
        for ((entry, pointer), region) in self
            .entries
            .iter_mut()
            .zip(self.pointers.iter_mut())
            .zip(regions)
        {
            *entry = MemoryMapEntry {
                base: region.base,
                length: region.end - region.base,
                kind: region.kind as u64,
            };
            *pointer = address(entry);
        }
        self.response.count = regions.len() as u64;
        self.response.pointers = address(self.pointers);
        answers
            .requests
            .answer(answers.image, Feature::MemoryMap, address(self.response));
    }
}
