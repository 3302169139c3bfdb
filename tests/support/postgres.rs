//! A private PostgreSQL on a Unix socket in a temporary folder.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::daemon::{Daemon, binary, until};

pub struct Postgres {
    daemon: Option<Daemon>,
    bin: PathBuf,
    settings: Vec<String>,
    dir: TempDir,
}

impl Postgres {
    /// Starts a server of an empty database; `None` where `PORTCULLIS_TEST_POSTGRES` names no
    /// folder of its programs.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with settings of the form `name=value`.
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let bin = PathBuf::from(binary("PORTCULLIS_TEST_POSTGRES")?);
        let dir = tempfile::Builder::new().prefix("pg").tempdir().unwrap();
        if let Some((user, group)) = other_user() {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let made = run(&bin.join("initdb"), dir.path())
            .arg("-D")
            .arg(dir.path().join("data"))
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
            ])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(made.success(), "initdb");
        let mut postgres = Self {
            daemon: None,
            bin,
            settings: settings
                .iter()
                .map(|setting| (*setting).to_owned())
                .collect(),
            dir,
        };
        postgres.start_again();
        Some(postgres)
    }

    /// Starts the server on the data that it left.
    pub fn start_again(&mut self) {
        let dir = self.dir.path();
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(dir.join("log"));
        let mut command = run(&self.bin.join("postgres"), dir);
        command
            .arg("-D")
            .arg(dir.join("data"))
            .arg("-k")
            .arg(dir)
            .args(["-c", "listen_addresses=", "-c", "max_connections=200"])
            .stderr(log.unwrap());
        for setting in &self.settings {
            command.arg("-c").arg(setting);
        }
        // SIGQUIT ends its children too.
        let mut daemon = Daemon::spawn(&mut command, "-QUIT");
        until("PostgreSQL does not answer", || {
            // It does not start while children of one that was killed still end.
            if daemon.has_ended() {
                daemon = Daemon::spawn(&mut command, "-QUIT");
            }
            Command::new(self.bin.join("pg_isready"))
                .args(["-q", "-h"])
                .arg(self.dir.path())
                .status()
                .unwrap()
                .success()
        });
        self.daemon = Some(daemon);
    }

    /// Shuts it down as an operator does: connections are cut, what was committed stays.
    pub fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal("INT");
            daemon.wait();
        }
    }

    /// As when the power is cut, but for the disk.
    pub fn crash(&mut self) {
        drop(self.daemon.take());
    }

    /// `kill -9` of its first process, whose children then end by themselves.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.signal("KILL");
            daemon.wait();
        }
    }

    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.dir.path().display()
        )
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap()
    }
}

/// PostgreSQL refuses to run as root: then it runs as the user that Debian's package makes.
fn other_user() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line.expect("a user named postgres").split(':').skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok()).unwrap();
    Some((number(), number()))
}

fn run(program: &Path, dir: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(dir).env("LC_ALL", "C");
    if let Some((user, group)) = other_user() {
        command.uid(user).gid(group);
    }
    command
}
