//! Links the kernel as a freestanding, static program at its own address, with plain `cargo build`.
fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=kernel.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
        "-Wl,-z,max-page-size=0x1000",
        "-Wl,--no-dynamic-linker",
    ] {
        println!("cargo:rustc-link-arg-bin=kernel={argument}");
    }
    println!("cargo:rustc-link-arg-bin=kernel=-Wl,-T,{folder}/kernel.ld");
}
