//! What the documents say of the tests is true.

use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    collect(&root.join("tests"), &mut tests);
    collect(&root.join("src"), &mut tests);
    for (document, heading) in [
        ("README.md", "the test that shows it"),
        ("SECURITY.md", "the test that stops it"),
    ] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let named = named(&text, heading);
        assert!(named.len() > 15, "{document} names {}", named.len());
        let missing: Vec<_> = named.difference(&tests).collect();
        assert!(missing.is_empty(), "{document} names {missing:?}");
    }
}

#[test]
fn every_example_is_run_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = String::new();
    for folder in ["tests", "tests/support"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                sources += &fs::read_to_string(path).unwrap();
            }
        }
    }
    for entry in fs::read_dir(root.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_run = ["example", "output_of", "Example::start"]
            .iter()
            .any(|call| sources.contains(&format!("{call}(\"{name}\"")));
        assert!(is_run, "no test runs the example {name}");
    }
}

/// Under each field the variable, the default and the line of the policy.
#[test]
fn every_setting_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/stack/settings.rs")).unwrap();
    let fields = source.split_once("pub struct Settings {").unwrap().1;
    let fields = fields.split_once("\n}").unwrap().0;
    let mut count = 0;
    let mut told = String::new();
    for line in fields.lines().map(str::trim).skip(1) {
        match line.strip_prefix("///") {
            Some(text) => told += text,
            None => {
                let variable = told.trim_start().split('`').nth(1).unwrap_or_default();
                let is_name = |byte: u8| byte.is_ascii_uppercase() || byte == b'_';
                assert!(
                    !variable.is_empty() && variable.bytes().all(is_name),
                    "{line} {told}"
                );
                assert!(told.contains("default"), "{variable}: {told}");
                assert!(told.contains(" Policy: "), "{variable}: {told}");
                count += 1;
                told.clear();
            }
        }
    }
    assert!(count >= 28, "{count}");
}

/// The names in the last column of every table with this heading. A row without one is a fault.
fn named(text: &str, heading: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut lines = text.lines();
    while lines.any(|line| line.starts_with('|') && line.contains(heading)) {
        let rows = lines
            .by_ref()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        for row in rows {
            let last = row.trim_end_matches('|').rsplit('|').next().unwrap();
            let in_row: Vec<_> = last.split('`').skip(1).step_by(2).collect();
            assert!(!in_row.is_empty(), "no test in {row}");
            names.extend(in_row.into_iter().map(str::to_owned));
        }
    }
    names
}

/// The functions of a folder that are marked as tests.
fn collect(folder: &Path, tests: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, tests);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path).unwrap();
            let mut is_test = false;
            for line in source.lines().map(str::trim) {
                if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                    is_test = true;
                } else if let Some((_, function)) = line.split_once("fn ").filter(|_| is_test) {
                    let name = function.split(['(', '<']).next().unwrap();
                    tests.insert(name.to_owned());
                    is_test = false;
                }
            }
        }
    }
}
