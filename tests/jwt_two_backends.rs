//! The two backends: what each brings, and a program that has both, built and run as a user would
//! have it.

use std::{collections::HashSet, path::Path, process::Command};

/// P27: each backend comes alone. The default has none of the crates of the other, whose `rsa` an
/// audit reports (RUSTSEC-2023-0071), and the other needs no C toolchain.
#[test]
fn p27_each_backend_is_its_own_choice() {
    let tree = |backend: &str| {
        let output = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--locked", "--prefix=none"])
            .args(["--edges=normal,build", "--no-default-features"])
            .arg(format!("--features=jwt,{backend}"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{complained}");
        let names = String::from_utf8_lossy(&output.stdout);
        let names = names.lines().filter_map(|line| line.split(' ').next());
        names.map(str::to_owned).collect::<HashSet<_>>()
    };
    let (default, pure) = (tree("aws-lc-rs"), tree("rust-crypto"));
    for (name, by_default, in_pure_rust) in [
        ("aws-lc-rs", true, false),
        ("aws-lc-sys", true, false),
        ("cc", true, false),
        ("rsa", false, true),
        ("p256", false, true),
        ("jsonwebtoken", true, true),
    ] {
        assert_eq!(default.contains(name), by_default, "{name}");
        assert_eq!(pure.contains(name), in_pure_rust, "{name}");
    }
}

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
