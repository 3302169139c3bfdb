//! A server of a test's own: a child process that ends with the test, also when that panics.

use std::{
    ffi::OsString,
    net::TcpListener,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub struct Daemon {
    child: Child,
    /// What ends it and its children at once.
    end: &'static str,
}

impl Daemon {
    pub fn spawn(command: &mut Command, end: &'static str) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, end }
    }

    /// Sends a signal, by name and to this process alone.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success(), "kill -{name}");
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !self.has_ended() {
            // It may be stopped, and then would not hear.
            for signal in ["-CONT", self.end] {
                let pid = self.child.id().to_string();
                let _ = Command::new("kill").args([signal, &pid]).status();
            }
            let _ = self.child.wait();
        }
    }
}

/// What the variable names, or a line on stderr that the test is skipped.
pub fn binary(variable: &str) -> Option<OsString> {
    let binary = std::env::var_os(variable).filter(|path| !path.is_empty());
    if binary.is_none() {
        eprintln!("skipped: {variable} is not set");
    }
    binary
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// Asks until the answer is yes.
pub fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !ready() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}
