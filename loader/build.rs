//! Links the loader as a freestanding, statically placed ELF64, so that plain `cargo build -p loader` is enough.

fn main() {
    let script = "loader.ld";
    println!("cargo:rerun-if-changed={script}");
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets the manifest folder");
    for argument in [
        format!("-Wl,-T,{folder}/{script}"),
        "-nostartfiles".into(),
        "-nostdlib".into(),
        "-static".into(),
        // The host target links position-independent executables by default; QEMU loads by physical address.
        "-no-pie".into(),
        "-Wl,--build-id=none".into(),
        "-Wl,-z,max-page-size=0x1000".into(),
        "-Wl,-z,norelro".into(),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
