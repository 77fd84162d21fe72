//! Compiled functions with damage: the verifier refuses them, or they run safely.

use vua::bytecode::instructions::ALL_OPS;
use vua::bytecode::{CaptureKind, CaptureSource, Function, Op};

use crate::random::Random;

/// One of the functions in a chunk, the chunk itself included.
fn some_function<'a>(main: &'a mut Function, random: &mut Random) -> &'a mut Function {
    let mut function = main;
    while !function.children.is_empty() && !random.one_in(3) {
        let count = function.children.len();
        function = &mut function.children[random.below(count)];
    }
    function
}

/// Damages one to three things in a chunk: words of code, captures, the shape of frames, constants, names.
pub fn damage(main: &mut Function, random: &mut Random) {
    for _ in 0..random.between(1, 3) {
        let function = some_function(main, random);
        let words = function.code.len();
        let (i, j) = (random.below(words), random.below(words));
        match random.below(14) {
            0..=5 => {
                let shift = random.below(4) * 8;
                let byte = function.code[i] >> shift & 0xff;
                let byte = match random.below(4) {
                    0 => random.below(256) as u32,
                    1 => random.below(8) as u32,
                    2 => byte.wrapping_add(1) & 0xff,
                    _ => byte.wrapping_sub(1) & 0xff,
                };
                function.code[i] = function.code[i] & !(0xff << shift) | byte << shift;
            }
            6 => function.code[i] = function.code[i] & !0xff | random.below(ALL_OPS.len()) as u32,
            7 => function.code[i] = function.code[j],
            8 => function.code.swap(i, j),
            9 => {
                let word = function.code[j];
                function.code.insert(i + 1, word);
                if i < function.lines.len() {
                    function.lines.insert(i + 1, 1);
                }
            }
            10 if words > 2 && i > 0 => {
                function.code.remove(i);
                if i < function.lines.len() {
                    function.lines.remove(i);
                }
            }
            11 if !function.captures.is_empty() => {
                let count = function.captures.len();
                let capture = &mut function.captures[random.below(count)];
                let kinds = [
                    CaptureKind::Value,
                    CaptureKind::Cell,
                    CaptureKind::Raw,
                    CaptureKind::RawCell,
                ];
                match random.below(4) {
                    0 => capture.source = CaptureSource::Register(random.below(20) as u8),
                    1 => capture.source = CaptureSource::Capture(random.below(4) as u16),
                    2 => capture.source = CaptureSource::Itself,
                    _ => capture.kind = kinds[random.below(4)],
                }
            }
            12 => {
                match random.below(6) {
                    0 => {
                        function.registers = function
                            .registers
                            .wrapping_add(random.below(5) as u8)
                            .wrapping_sub(2)
                    }
                    1 => function.parameters = random.below(5) as u8,
                    2 => function.variadic = !function.variadic,
                    3 => function.raw_count = random.below(6) as u8,
                    4 => function.raw_start = random.below(6) as u8,
                    _ => function.parallel_body = !function.parallel_body,
                }
                let head = if function.variadic {
                    Op::FUNCV
                } else {
                    Op::FUNC
                };
                function.code[0] = vua::bytecode::instructions::ad(
                    head,
                    function.registers,
                    u16::from(function.parameters),
                );
            }
            _ if !function.locals.is_empty() => {
                let count = function.locals.len();
                let local = &mut function.locals[random.below(count)];
                (local.start, local.end) = (random.below(100) as u32, random.bits() as u32);
                local.register = random.below(256) as u8;
            }
            _ => {
                if let count @ 1.. = function.constants.len() {
                    let (i, j) = (random.below(count), random.below(count));
                    function.constants.swap(i, j);
                }
            }
        }
    }
}

/// A program that loads the chunks of the files that it is given as arguments and runs each for a moment, without what reaches outside.
pub const RUNNER: &str = include_str!("../runner.lua");
