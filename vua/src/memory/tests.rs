//! Layouts against the rules written another way, and against C's; scalars to the byte.

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;

use super::layout::{Field, Layout, Member, Origin, Shape, has_scalar, layouts};
use super::{Scalar, scalar};

fn field(i: usize, member: Member, count: Option<u32>) -> Field {
    Field {
        name: Arc::from(format!("f{i}")),
        member,
        count,
    }
}

fn shape(packed: bool, fields: &[(Member, Option<u32>)]) -> Shape {
    Shape {
        outermost: true,
        origin: Origin::Here,
        name: Arc::from("S"),
        packed,
        fields: fields
            .iter()
            .enumerate()
            .map(|(i, &(member, count))| field(i, member, count))
            .collect(),
    }
}

/// What C makes of the same declarations.
#[test]
fn a_layout_is_that_of_c() {
    #[repr(C)]
    struct Inner {
        a: u8,
        b: u16,
        c: u64,
        d: bool,
    }
    #[repr(C)]
    struct Outer {
        head: u8,
        inner: Inner,
        list: [Inner; 3],
        raw: [u16; 5],
        f: f32,
        tail: i8,
    }
    use Member::Scalar as S;
    let inner = shape(
        false,
        &[
            (S(Scalar::U8), None),
            (S(Scalar::U16), None),
            (S(Scalar::U64), None),
            (S(Scalar::Bool), None),
        ],
    );
    let outer = shape(
        false,
        &[
            (S(Scalar::U8), None),
            (Member::Struct(0), None),
            (Member::Struct(0), Some(3)),
            (S(Scalar::U16), Some(5)),
            (S(Scalar::F32), None),
            (S(Scalar::I8), None),
        ],
    );
    let found = layouts(&[inner, outer]).unwrap();
    use core::mem::offset_of;
    assert_eq!(found[0].size, size_of::<Inner>());
    assert_eq!(found[0].align, align_of::<Inner>());
    assert_eq!(found[1].size, size_of::<Outer>());
    let offsets = [
        offset_of!(Outer, head),
        offset_of!(Outer, inner),
        offset_of!(Outer, list),
        offset_of!(Outer, raw),
        offset_of!(Outer, f),
        offset_of!(Outer, tail),
    ];
    assert_eq!(found[1].offsets, offsets);
}

#[test]
fn what_has_no_layout_is_refused() {
    let with_ref = shape(false, &[(Member::Scalar(Scalar::Ref), Some(2))]);
    let known = layouts(core::slice::from_ref(&with_ref)).unwrap();
    assert_eq!(known[0].refs, [0, 8]);
    let packed = shape(true, &[(Member::Scalar(Scalar::Ref), None)]);
    assert!(Layout::of(&packed, &known).is_err());
    let embeds = shape(true, &[(Member::Struct(0), None)]);
    assert!(Layout::of(&embeds, &known).is_err());
    let later = shape(false, &[(Member::Struct(1), None)]);
    assert!(Layout::of(&later, &known).is_err());
    let huge = shape(false, &[(Member::Scalar(Scalar::U64), Some(u32::MAX))]);
    assert!(Layout::of(&huge, &known).is_err());
}

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// As many cases as are quick; fewer where each step is slow.
const CASES: u64 = if cfg!(miri) { 10 } else { 1000 };

/// Shapes of which each may embed earlier ones.
fn shapes(random: &mut Random) -> Vec<Shape> {
    let mut made: Vec<Shape> = Vec::new();
    let mut with_refs: Vec<bool> = Vec::new();
    for _ in 0..1 + random.below(3) {
        let mut members = Vec::new();
        for _ in 0..1 + random.below(5) {
            let member = if !made.is_empty() && random.below(3) == 0 {
                Member::Struct(random.below(made.len()) as u32)
            } else {
                Member::Scalar(Scalar::ALL[random.below(Scalar::ALL.len())])
            };
            let count = (random.below(3) == 0).then(|| 1 + random.below(3) as u32);
            members.push((member, count));
        }
        let refs = members.iter().any(|(member, _)| match *member {
            Member::Scalar(kind) => kind == Scalar::Ref,
            Member::Struct(index) => with_refs[index as usize],
        });
        made.push(shape(random.below(2) == 0 && !refs, &members));
        with_refs.push(refs);
    }
    made
}

/// Every scalar of a struct and where it lies, by going through the declaration byte by byte.
fn walk(
    shapes: &[Shape],
    index: u32,
    base: usize,
    out: &mut Vec<(usize, Scalar)>,
) -> (usize, usize) {
    let shape = &shapes[index as usize];
    let (mut at, mut widest) = (0usize, 1);
    for field in &shape.fields {
        for _ in 0..field.count.unwrap_or(1) {
            let mut inner = Vec::new();
            let (size, align) = match field.member {
                Member::Scalar(kind) => {
                    inner.push((0, kind));
                    (kind.size(), kind.size())
                }
                Member::Struct(index) => walk(shapes, index, 0, &mut inner),
            };
            if !shape.packed {
                while at % align != 0 {
                    at += 1;
                }
                widest = widest.max(align);
            }
            out.extend(
                inner
                    .iter()
                    .map(|&(offset, kind)| (base + at + offset, kind)),
            );
            at += size;
        }
    }
    while at % widest != 0 {
        at += 1;
    }
    (at, widest)
}

#[test]
fn layouts_agree_with_the_reference() {
    for seed in 0..CASES {
        let shapes = shapes(&mut Random(seed));
        let found = layouts(&shapes).unwrap();
        for (index, layout) in found.iter().enumerate() {
            let mut leaves = Vec::new();
            let (size, align) = walk(&shapes, index as u32, 0, &mut leaves);
            assert_eq!((layout.size, layout.align), (size, align), "{shapes:?}");
            let refs: Vec<u32> = leaves
                .iter()
                .filter(|leaf| leaf.1 == Scalar::Ref)
                .map(|leaf| leaf.0 as u32)
                .collect();
            assert_eq!(layout.refs, refs, "{shapes:?}");
            for offset in 0..size + 8 {
                for &kind in Scalar::ALL {
                    let there = leaves.contains(&(offset, kind));
                    let found = has_scalar(&shapes, &found, index as u32, offset, kind);
                    assert_eq!(found, there, "{shapes:?} {index} {offset} {kind:?}");
                }
            }
        }
    }
}

#[test]
fn numbers_are_stored_to_the_byte() {
    let mut random = Random(1);
    for case in 0..CASES {
        let (i, shift) = (random.next() as i64, (case % 8) as usize);
        for &kind in Scalar::ALL.iter().filter(|kind| kind.is_integer()) {
            let mut memory = [0xaau8; 24];
            // SAFETY: inside the array, which nobody else uses.
            let read = unsafe {
                let at = memory.as_mut_ptr().add(shift);
                scalar::store_integer(kind, at, i);
                scalar::load_integer(kind, at)
            };
            let size = kind.size();
            let mut bytes = i.to_le_bytes()[..size].to_vec();
            if kind.name().ends_with("be") {
                bytes.reverse();
            }
            assert_eq!(memory[shift..shift + size], bytes[..], "{kind:?}");
            let around = memory[..shift].iter().chain(&memory[shift + size..]);
            assert!(around.clone().all(|b| *b == 0xaa), "{kind:?}");
            let bits = 64 - 8 * size as u32;
            // `u64` reads are signed, as all words are.
            let wanted = match kind.name().as_bytes()[0] {
                b'u' => ((i as u64) << bits >> bits) as i64,
                _ => i << bits >> bits,
            };
            assert_eq!(read, wanted, "{kind:?}");
        }
    }
}

#[test]
fn floats_are_stored_to_the_byte() {
    let mut random = Random(2);
    for case in 0..CASES {
        // Every other one is a NaN or an infinity.
        let bits = random.next() | if case % 2 == 0 { 0x7ff0 << 48 } else { 0 };
        let (f, shift) = (f64::from_bits(bits), (case % 8) as usize);
        for kind in [Scalar::F64, Scalar::F64be, Scalar::F32, Scalar::F32be] {
            let mut memory = [0u8; 24];
            // SAFETY: inside the array, which nobody else uses.
            let read = unsafe {
                let at = memory.as_mut_ptr().add(shift);
                scalar::store_float(kind, at, f);
                scalar::load_float(kind, at)
            };
            let wanted = if kind.size() == 8 {
                f
            } else {
                f64::from(f as f32)
            };
            if wanted.is_nan() {
                assert_eq!(read.to_bits(), f64::NAN.to_bits());
            } else {
                assert_eq!(read.to_bits(), wanted.to_bits());
            }
        }
    }
}

#[test]
fn copies_are_whole() {
    let mut random = Random(3);
    for _ in 0..CASES {
        let (from, to, count) = (random.below(40), random.below(40), random.below(40));
        let mut memory: Vec<u8> = (0..96).collect();
        let mut wanted = memory.clone();
        wanted.copy_within(from..from + count, to);
        // SAFETY: inside the vector, which nobody else uses.
        unsafe {
            let at = memory.as_mut_ptr();
            scalar::copy_bytes(at.add(from), at.add(to), count);
        }
        assert_eq!(memory, wanted);
    }
}
