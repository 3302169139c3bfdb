//! The example server as a process of its own, on a free port.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running example server; it is killed when this is dropped.
pub struct Server {
    child: Child,
    pub addr: std::net::SocketAddr,
    pub dir: Arc<TempDir>,
    pub log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts on embedded defaults, with cheap hashes, and with `vars` over them.
    pub fn start(vars: &[(&str, &str)]) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), vars)
    }

    /// Starts with a log that nobody reads.
    pub fn start_unread(vars: &[(&str, &str)]) -> Self {
        Self::launch(Arc::new(TempDir::new().unwrap()), vars, false)
    }

    /// Starts in a directory that another server may have used.
    pub fn start_in(dir: Arc<TempDir>, vars: &[(&str, &str)]) -> Self {
        Self::launch(dir, vars, true)
    }

    fn launch(dir: Arc<TempDir>, vars: &[(&str, &str)], is_read: bool) -> Self {
        let mut child = command(dir.path(), vars)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = log.clone();
        let told = thread::spawn(move || {
            let mut line = String::new();
            if !is_read {
                // Open, and full before long.
                return std::mem::forget(stderr);
            }
            while stderr.read_line(&mut line).is_ok_and(|read| read > 0) {
                lines.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut line)
            .unwrap();
        let Some(addr) = line
            .trim_end()
            .strip_prefix("secure_api listening on http://")
        else {
            let _ = child.kill();
            let status = child.wait();
            let _ = told.join();
            panic!(
                "no address but {line:?}, then {status:?}\n{}",
                log.lock().unwrap()
            );
        };
        Self {
            addr: addr.parse().unwrap(),
            child,
            dir,
            log,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// The log once it holds `text`, which comes through a pipe.
    pub fn logged(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log.lock().unwrap().clone();
            if log.contains(text) {
                return log;
            }
            assert!(start.elapsed() < PATIENCE, "no {text} in\n{log}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends the process as a power cut would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks the process to stop, and waits for it.
    pub fn stop(mut self) -> ExitStatus {
        let stopped = Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status();
        assert!(stopped.unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the example to its end, for settings that it refuses: exit code and standard error.
pub fn refused(vars: &[(&str, &str)]) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    let mut child = command(dir.path(), vars)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    (child.wait().unwrap().code(), told)
}

fn command(dir: &Path, vars: &[(&str, &str)]) -> Command {
    let mut command = Command::new(example("secure_api"));
    command
        .current_dir(dir)
        .env_clear()
        .env("BIND_ADDR", "127.0.0.1:0")
        .env("BCRYPT_COST", "4")
        .envs(vars.iter().copied())
        .stdin(Stdio::null());
    command
}

/// The program of an example.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let binary = profile.join("examples").join(name);
    assert!(
        binary.exists(),
        "build it first: cargo build --all-features --examples"
    );
    binary
}

const PATIENCE: Duration = Duration::from_secs(10);
