//! Links the program at a fixed address: a position-independent one would write its relocations
//! into memory at each start, some 700 KiB that every pod's keeper would hold for itself.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bins=-no-pie");
}
