//! Breaks the decisions of a gate one at a time, and tells which break no test notices.
//!
//! All mutants of a gate are compiled at once, each behind a switch that the environment turns on,
//! so that a mutant costs one run of the tests that reach it and not a build.

mod instrument;

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use instrument::{Mutant, instrument};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What a gate's decisions stand in, and the test binaries that judge them.
struct Gate {
    name: String,
    files: Vec<String>,
    tests: Vec<String>,
}

fn main() -> Result<()> {
    let mut gates = Vec::new();
    for name in env::args().skip(1) {
        gates.push(gate(&name)?);
    }
    if gates.is_empty() {
        return Err("usage: mutants <gate>…".into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()?;
    let work = Work {
        tree: root.join("target/mutants/tree"),
        target: root.join("target"),
        root,
    };
    work.copy()?;
    let mutants = work.plant(&gates)?;
    let mut binaries = work.build(&gates)?;
    let reached = work.trace(&mut binaries)?;
    for gate in &gates {
        work.judge(gate, &mutants, &binaries, &reached)?;
    }
    Ok(())
}

fn gate(name: &str) -> Result<Gate> {
    for line in include_str!("../gates.txt").lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some(name) {
            let (files, tests) = words
                .map(str::to_owned)
                .partition(|word| word.ends_with(".rs"));
            return Ok(Gate {
                name: name.to_owned(),
                files,
                tests,
            });
        }
    }
    Err(format!("gates.txt has no gate {name}").into())
}

/// A test binary and the names of its tests.
struct Binary {
    path: PathBuf,
    tests: Vec<String>,
    /// How long each took, unbroken.
    took: Vec<Duration>,
}

/// The tests that reach each mutant, by index of binary and of test.
type Reached = BTreeMap<usize, BTreeMap<usize, Vec<usize>>>;

struct Work {
    root: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Work {
    fn copy(&self) -> Result<()> {
        fs::create_dir_all(&self.tree)?;
        for part in ["src", "tests", "examples", "benches"] {
            let _ = fs::remove_dir_all(self.tree.join(part));
            let status = Command::new("cp")
                .args(["-a", "--"])
                .args([self.root.join(part), self.tree.join(part)])
                .status()?;
            if !status.success() {
                return Err(format!("cannot copy {part}").into());
            }
        }
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, self.tree.join(name))?;
            }
        }
        let lib = self.tree.join("src/lib.rs");
        let text = fs::read_to_string(&lib)?;
        fs::write(&lib, format!("#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n{text}\nmod mutants;\n"))?;
        fs::write(self.tree.join("src/mutants.rs"), SWITCH)?;
        Ok(())
    }

    /// Writes the mutants into the files, and drops those that do not compile.
    fn plant(&self, gates: &[Gate]) -> Result<Vec<Mutant>> {
        let mut dropped = BTreeSet::new();
        loop {
            let mut mutants = Vec::new();
            for file in gates.iter().flat_map(|gate| &gate.files) {
                let source = fs::read_to_string(self.root.join(file))?;
                let text = instrument(file, &source, &mut mutants, &dropped)?;
                fs::write(self.tree.join(file), text)?;
            }
            let errors = errors(&self.cargo(&["check", "--lib"])?);
            if errors.is_empty() {
                return Ok(mutants);
            }
            let mut found = BTreeSet::new();
            for error in &errors {
                for span in error["spans"].as_array().into_iter().flatten() {
                    if span["is_primary"] == true {
                        found.extend(self.before(span)?);
                    }
                }
            }
            for id in found.difference(&dropped) {
                let mutant = &mutants[*id];
                eprintln!("dropped {}:{} {}", mutant.file, mutant.line, mutant.what);
            }
            if found.is_subset(&dropped) {
                return Err(shown(&errors).into());
            }
            dropped.extend(found);
        }
    }

    /// The last mutant that stands before the end of an error.
    fn before(&self, span: &Value) -> Result<Option<usize>> {
        let Some(file) = span["file_name"].as_str() else {
            return Ok(None);
        };
        let text = fs::read(self.tree.join(file))?;
        let end = span["byte_end"].as_u64().unwrap_or_default() as usize;
        let text = String::from_utf8_lossy(&text[..end.min(text.len())]);
        let Some(at) = text.rfind("mutants::on(") else {
            return Ok(None);
        };
        let digits = text[at + "mutants::on(".len()..].split(')').next();
        Ok(digits.and_then(|digits| digits.parse().ok()))
    }

    /// What cargo says.
    fn cargo(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let output = Command::new("cargo")
            .current_dir(&self.tree)
            .args(arguments)
            .args(["--locked", "--all-features", "--quiet"])
            .args(["--message-format=json", "--target-dir"])
            .arg(&self.target)
            .stderr(Stdio::null())
            .output()?;
        Ok(String::from_utf8(output.stdout)?
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect())
    }

    /// The test binaries of these gates.
    fn build(&self, gates: &[Gate]) -> Result<Vec<Binary>> {
        let tests: BTreeSet<_> = gates.iter().flat_map(|gate| &gate.tests).collect();
        let mut arguments = vec!["test", "--no-run", "--lib"];
        for test in tests {
            arguments.extend(["--test", test]);
        }
        let messages = self.cargo(&arguments)?;
        let errors = errors(&messages);
        if !errors.is_empty() {
            return Err(shown(&errors).into());
        }
        let mut binaries = Vec::new();
        for message in messages {
            if let Some(path) = message["executable"].as_str()
                && message["profile"]["test"] == true
            {
                let arguments = ["--list", "--format", "terse"];
                let list = self.run(Path::new(path), &arguments, &[], None)?;
                let tests = list
                    .lines()
                    .filter_map(|line| line.strip_suffix(": test"))
                    .map(str::to_owned)
                    .collect();
                binaries.push(Binary {
                    path: path.into(),
                    tests,
                    took: Vec::new(),
                });
            }
        }
        Ok(binaries)
    }

    /// The output of a test binary that succeeds.
    fn run(
        &self,
        binary: &Path,
        arguments: &[&str],
        variables: &[(&str, &str)],
        within: Option<Duration>,
    ) -> Result<String> {
        let mut child = Command::new(binary)
            .current_dir(&self.tree)
            .args(arguments)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(if within.is_some() {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stderr(Stdio::null())
            .spawn()?;
        if let Some(within) = within {
            let start = Instant::now();
            while child.try_wait()?.is_none() {
                if start.elapsed() > within {
                    child.kill()?;
                    child.wait()?;
                    return Err("timeout".into());
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(output.status.to_string().into());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Runs each test once, unbroken, and notes what it reaches.
    fn trace(&self, binaries: &mut [Binary]) -> Result<Reached> {
        let file = self.tree.join("trace");
        let mut reached = Reached::new();
        for (index, binary) in binaries.iter_mut().enumerate() {
            for (number, test) in binary.tests.iter().enumerate() {
                fs::write(&file, "")?;
                let start = Instant::now();
                let path = file.to_string_lossy();
                let result = self.run(
                    &binary.path,
                    &["--exact", test],
                    &[("MUTANT_TRACE", &path)],
                    None,
                );
                binary.took.push(start.elapsed());
                if result.is_err() {
                    eprintln!("{test} fails unbroken, and is left out");
                    continue;
                }
                for id in fs::read_to_string(&file)?.lines() {
                    reached
                        .entry(id.parse()?)
                        .or_default()
                        .entry(index)
                        .or_default()
                        .push(number);
                }
            }
        }
        Ok(reached)
    }

    /// Turns the mutants of a gate on, one after the other, and tells which no test notices.
    fn judge(
        &self,
        gate: &Gate,
        mutants: &[Mutant],
        binaries: &[Binary],
        reached: &Reached,
    ) -> Result<()> {
        let (mut killed, mut survived) = (0, 0);
        for (id, mutant) in mutants.iter().enumerate() {
            if mutant.dropped || !gate.files.contains(&mutant.file) {
                continue;
            }
            let number = id.to_string();
            let by_binary = reached.get(&id);
            let notices = |(binary, tests): (&usize, &Vec<usize>)| {
                let binary = &binaries[*binary];
                let mut arguments = vec!["--exact"];
                arguments.extend(tests.iter().map(|test| binary.tests[*test].as_str()));
                let took: Duration = tests.iter().map(|test| binary.took[*test]).sum();
                let within = 10 * took + Duration::from_secs(20);
                let variables = [("MUTANT", number.as_str())];
                self.run(&binary.path, &arguments, &variables, Some(within))
                    .is_err()
            };
            if by_binary.is_some_and(|by_binary| by_binary.iter().any(notices)) {
                killed += 1;
                continue;
            }
            survived += 1;
            let how = match by_binary {
                Some(_) => "survived",
                None => "unreached",
            };
            println!("{how} {}:{} {}", mutant.file, mutant.line, mutant.what);
        }
        println!("{}: {killed} killed, {survived} survived", gate.name);
        Ok(())
    }
}

fn errors(messages: &[Value]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| &message["message"])
        .filter(|message| message["level"] == "error")
        .cloned()
        .collect()
}

fn shown(errors: &[Value]) -> String {
    errors
        .iter()
        .filter_map(|error| error["rendered"].as_str())
        .collect()
}

/// Stands in the crate for the time of the check.
const SWITCH: &str = r#"
use std::{
    collections::HashSet,
    env, fs,
    io::Write as _,
    sync::{LazyLock, Mutex},
};

static ON: LazyLock<u32> = LazyLock::new(|| {
    env::var("MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(u32::MAX)
});
static TRACE: LazyLock<Option<Mutex<(fs::File, HashSet<u32>)>>> = LazyLock::new(|| {
    let path = env::var("MUTANT_TRACE").ok()?;
    let file = fs::OpenOptions::new().append(true).open(path).ok()?;
    Some(Mutex::new((file, HashSet::new())))
});

pub(crate) fn on(id: u32) -> bool {
    if let Some(trace) = &*TRACE
        && let Ok(mut trace) = trace.lock()
        && trace.1.insert(id)
    {
        let _ = writeln!(trace.0, "{id}");
    }
    *ON == id
}
"#;
