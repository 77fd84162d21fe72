//! What compiling, verifying, encoding and decoding take of memory, measured with an allocator that counts, against what they ask for before.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use vua::bytecode::binary;
use vua::compile::modules::Files;

struct Counting;
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: all is handed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size() + 16, Relaxed) + layout.size() + 16;
        MOST.fetch_max(now, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size() + 16, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Texts of many tokens of one kind.
fn sources(n: usize) -> Vec<(&'static str, String)> {
    vec![
        ("dots", format!("x = {}b", "a.".repeat(n))),
        ("adds", format!("x = 1{}", "+1".repeat(n))),
        ("addn", format!("x = a{}", "+a".repeat(n))),
        ("calls", format!("f{}", "()".repeat(n))),
        ("table", format!("x = {{{}}}", "{},".repeat(n))),
        ("table1", format!("x = {{{}}}", "1,".repeat(n))),
        (
            "tables",
            format!(
                "x = {{{}}}",
                (0..n).map(|i| format!("a{i}=1,")).collect::<String>()
            ),
        ),
        (
            "consts",
            format!(
                "x = {{{}}}",
                (0..n).map(|i| format!("{i}.5,")).collect::<String>()
            ),
        ),
        (
            "functions",
            format!("x = {{{}}}", "function()end,".repeat(n)),
        ),
        (
            "functions2",
            "local function f() return a end ".repeat(190).to_string(),
        ),
        ("assign", "a=1 ".repeat(n)),
        ("dos", "do end ".repeat(n)),
        ("ifs", "if a then end ".repeat(n)),
        ("whiles", "while a do end ".repeat(n)),
        ("locals", "do local a end ".repeat(n)),
        (
            "many",
            format!(
                "do local {} end ",
                (0..199)
                    .map(|i| format!("a{i}"))
                    .collect::<Vec<_>>()
                    .join(",")
            )
            .repeat(100),
        ),
        (
            "elseifs",
            format!("if a then {} end", "elseif a then ".repeat(n)),
        ),
        ("ands", format!("x = a{}", " and a".repeat(n))),
        ("nots", format!("x = {}", "a == b == ".repeat(n) + "1")),
        (
            "strings",
            format!(
                "x = {{{}}}",
                (0..n).map(|i| format!("'{i}',")).collect::<String>()
            ),
        ),
        (
            "labels",
            (0..n).map(|i| format!("::l{i}:: ")).collect::<String>(),
        ),
        (
            "gotos",
            (0..2000)
                .map(|i| format!("goto l{i} ::l{i}:: "))
                .collect::<String>(),
        ),
        ("semis", ";".repeat(n)),
        ("concat", format!("x = a{}", "..a".repeat(150))),
        (
            "upvalues",
            format!(
                "local a; {}",
                "do local function f() return a end end ".repeat(n / 4)
            ),
        ),
        (
            "regs",
            format!(
                "local {} {}",
                (0..190)
                    .map(|i| format!("a{i}"))
                    .collect::<Vec<_>>()
                    .join(","),
                "if a1 then a2=a3 end ".repeat(n / 8)
            ),
        ),
        (
            "structs",
            (0..500)
                .map(|i| format!("do struct S{i} a: reg b: f64 c: u8 end end "))
                .collect::<String>(),
        ),
        (
            "fields",
            format!(
                "struct S {} end",
                (0..2000).map(|i| format!("a{i}: u8 ")).collect::<String>()
            ),
        ),
        (
            "imports",
            (0..500)
                .map(|i| format!("do struct S{} from 'm' end ", i % 190))
                .collect::<String>(),
        ),
        ("errors", "x = = 1 ".repeat(n)),
        ("parfor", "parallel for i = 1, 2 do end ".repeat(n / 8)),
        ("longname", format!("local {} = 1", "a".repeat(n * 10))),
        ("longstring", format!("local s = '{}'", "a".repeat(n * 10))),
        ("comment", format!("--{}", "a".repeat(n * 10))),
    ]
}

/// One module, of many structs.
struct OneModule(String);

impl OneModule {
    fn new() -> OneModule {
        let declarations = (0..190)
            .map(|i| format!("struct S{i} a: reg b: f64[3] c: u8 d{i}: u32be end "))
            .collect::<String>();
        OneModule(format!("struct E a: u8 end {declarations}"))
    }
}

impl Files for OneModule {
    fn read(&self, file: &str, more: &mut dyn FnMut(usize) -> bool) -> Option<Vec<u8>> {
        (file == "m.vua" && more(self.0.len())).then(|| self.0.clone().into_bytes())
    }
}

/// The most that `run` has in use at a time beyond what there was, and its result.
fn most<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = NOW.load(Relaxed);
    MOST.store(before, Relaxed);
    let result = run();
    (MOST.load(Relaxed) - before, result)
}

// One test, for the counters are the process's.
#[test]
fn compiling_takes_no_more_than_was_asked_for() {
    let files = OneModule::new();
    // Just past a power of two, where a vector has just doubled, and where it is nearly full.
    for n in [16_400, 20_000, 33_000] {
        for (name, source) in sources(n) {
            let mut asked = 0;
            let (taken, compiled) = most(|| {
                let mut more = |bytes| {
                    asked += bytes;
                    true
                };
                let (compiled, modules) =
                    vua::compile::compile_within(source.as_bytes(), "t", &files, &mut more);
                if let Ok(function) = &compiled {
                    vua::bytecode::verify(function).unwrap();
                }
                drop(modules);
                compiled
            });
            assert!(compiled.is_ok() || name != "imports", "{compiled:?}");
            assert!(
                taken <= asked,
                "{name}: {taken} bytes taken, {asked} asked for, {} of text",
                source.len()
            );
            let Ok(function) = compiled else { continue };
            let mut bytes = Vec::new();
            for strip in [false, true] {
                let (taken, length) = most(|| binary::encoded_length(&function, &function, strip));
                assert_eq!(taken, 0, "{name}: counting takes nothing");
                let taken;
                (taken, bytes) = most(|| binary::encode(&function, strip));
                assert_eq!(bytes.len(), length, "{name}, encoded");
                // And what the counting allocator adds for each piece.
                assert_eq!(taken, length + 16, "{name}, encoded");
            }
            drop(function);
            let asked = binary::memory_to_decode(&bytes);
            let (taken, _) = most(|| {
                let function = binary::decode(&bytes).unwrap();
                vua::bytecode::verify(&function).unwrap();
                function
            });
            assert!(
                taken <= asked,
                "{name}, compiled: {taken} bytes taken, {asked} asked for, {} encoded",
                bytes.len()
            );
        }
    }
    // What is refused ends soon, without more.
    let source = "x = {} ".repeat(100_000);
    let mut left = 1 << 20;
    let (taken, _) = most(|| {
        let mut more = |bytes| {
            let granted = bytes <= left;
            left -= if granted { bytes } else { 0 };
            granted
        };
        drop(vua::compile::compile_within(
            source.as_bytes(),
            "t",
            &files,
            &mut more,
        ));
    });
    assert!(taken <= 1 << 20, "{taken} bytes taken, a mebibyte granted");
}
