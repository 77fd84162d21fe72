//! The standard library: what Lua 5.4 has (reference manual, 6), written as natives.
//!
//! | file | what |
//! | --- | --- |
//! | [`builder`] | how functions and tables of functions are defined |
//! | [`access`] | reading and writing as a program would, metamethods included, from a native's steps |
//! | [`buffer`] | text that is being put together |
//! | [`base`], [`coroutine`], [`load`], [`module`], [`debug`], [`string`], [`matching`], [`pack`], [`table`], [`sort`], [`math`], [`utf8`], [`io`], [`os`], [`screen`] | the libraries |
//! | [`pattern`], [`format`] | patterns and `string.format`'s directives, which know no heap |
//!
//! Every native here keeps these rules:
//! - Work without a constant bound polls every 16 KiB or 4,096 steps.
//! - What it has done before it may be run again (an allocation that fails, a shared table that grows) it has noted in its
//!   frame with [`Call::advance`](crate::interp::native::Call::advance), or else it has done nothing yet.
//! - Memory that depends on the program is asked for in a way that can fail.

pub(crate) mod access;
pub(crate) mod base;
pub(crate) mod buffer;
mod builder;
mod collector;
mod coroutine;
mod debug;
pub mod format;
mod gsub;
pub(crate) mod io;
pub(crate) mod load;
mod matching;
pub(crate) mod math;
pub(crate) mod memory;
pub(crate) mod module;
pub(crate) mod module_types;
mod os;
mod pack;
pub mod pattern;
mod screen;
mod sort;
pub(crate) mod string;
pub(crate) mod table;
pub(crate) mod tuning;
mod utf8;

use smp::platform::Platform;

pub use builder::Builder;

use crate::heap::NeedMemory;

/// Defines everything but what belongs to tasks.
pub fn open(builder: &mut Builder<'_>, platform: &'static dyn Platform) -> Result<(), NeedMemory> {
    base::open(builder)?;
    coroutine::open(builder)?;
    load::open(builder)?;
    debug::open(builder)?;
    string::open(builder)?;
    table::open(builder)?;
    math::open(builder)?;
    utf8::open(builder)?;
    io::open(builder)?;
    os::open(builder, platform)?;
    screen::open(builder, platform)?;
    memory::open(builder)?;
    collector::open(builder)?;
    module::open(builder)
}
