//! A program of two backends, built and run as a user would have it.

use std::{path::Path, process::Command};

/// P1: `jsonwebtoken` chooses a backend for the whole process, and panics where two are compiled
/// in; `serde_json` changes how numbers are read. Neither is felt here.
#[test]
#[ignore = "builds a program with all it depends on"]
fn other_crates_features_change_nothing() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let app = root.join("tests/apps/two_backends");
    let output = Command::new(env!("CARGO"))
        .args(["run", "--quiet", "--locked", "--manifest-path"])
        .arg(app.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", root.join("target/two_backends"))
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complained}");
    assert_eq!(said.trim(), "verified; jsonwebtoken::decode panicked: true");
}
