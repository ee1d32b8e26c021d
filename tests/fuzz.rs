//! Replays the fuzzer's kept inputs (`fuzz/seeds`), without a fuzzer: hand-picked ones, and every one that ever crashed, by name.
//!
//! `make fuzz` looks for new ones.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::fs;
use std::path::Path;

/// Runs a target on every file in its folder, and on some inputs that no folder needs to hold.
fn replay(name: &str) {
    let run = fuzz::TARGETS
        .iter()
        .find(|target| target.0 == name)
        .expect("a target")
        .1;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(folder)
        .expect("a folder of seeds")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        // Shown with a failure.
        println!("{}", file.display());
        run(&fs::read(file).expect("readable"));
    }
    run(&[]);
    run(&[0; 100]);
    run(&[0xff; 100]);
}

#[test]
fn every_target_has_a_binary_and_a_test() {
    let here = include_str!("fuzz.rs");
    let manifest = include_str!("../fuzz/Cargo.toml");
    for (name, _) in fuzz::TARGETS {
        assert!(here.contains(&format!("replay(\"{name}\")")), "{name} is not replayed");
        assert!(
            manifest.contains(&format!("fuzz_targets/{name}.rs")),
            "{name} has no binary"
        );
    }
}

#[test]
fn wire() {
    replay("wire");
}

#[test]
fn edit() {
    replay("edit");
}

#[test]
fn engine() {
    replay("engine");
}

#[test]
fn config() {
    replay("config");
}

#[test]
fn admin() {
    replay("admin");
}

#[test]
fn rules() {
    replay("rules");
}

#[test]
fn netlink() {
    replay("netlink");
}
