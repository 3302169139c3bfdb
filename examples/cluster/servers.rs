//! The processes: PostgreSQL, Redis and the instances, all ended with this one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, chown},
        net::UnixStream,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{Failure, LIMIT};

/// A process that is killed when it is dropped.
struct Process(Child);

impl Process {
    fn spawn(command: &mut Command) -> Result<Self, Failure> {
        let spawned = command.stdin(Stdio::null()).spawn();
        let program = command.get_program().to_string_lossy();
        Ok(Self(
            spawned.map_err(|error| format!("{program}: {error}"))?,
        ))
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let _ = Command::new("kill").args([name, &pid]).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A Redis that keeps nothing on disk.
pub(crate) struct Redis {
    socket: PathBuf,
    process: Option<Process>,
}

impl Redis {
    pub(crate) fn start(dir: &Path) -> Result<Self, Failure> {
        let mut redis = Self {
            socket: dir.join("redis.sock"),
            process: None,
        };
        redis.start_again()?;
        Ok(redis)
    }

    pub(crate) fn start_again(&mut self) -> Result<(), Failure> {
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        command
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--maxmemory-policy",
                "noeviction",
            ])
            .arg("--unixsocket")
            .arg(&self.socket)
            .stdout(Stdio::null());
        self.process = Some(Process::spawn(&mut command)?);
        until("Redis", || UnixStream::connect(&self.socket).is_ok())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    pub(crate) fn url(&self) -> String {
        format!("redis+unix://{}", self.socket.display())
    }
}

/// A PostgreSQL with an empty database.
pub(crate) struct Postgres {
    bin: PathBuf,
    dir: PathBuf,
    process: Option<Process>,
}

impl Postgres {
    pub(crate) fn start(dir: &Path) -> Result<Self, Failure> {
        let mut postgres = Self {
            bin: programs()?,
            dir: dir.join("postgres"),
            process: None,
        };
        fs::create_dir(&postgres.dir)?;
        if let Some((user, group)) = other_user()? {
            // Whoever it runs as must get to its folder.
            chown(dir, None, Some(group))?;
            let open = std::os::unix::fs::PermissionsExt::from_mode(0o750);
            fs::set_permissions(dir, open)?;
            chown(&postgres.dir, Some(user), Some(group))?;
        }
        let made = postgres
            .command("initdb")?
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-locale",
                "-N",
                "-D",
            ])
            .arg(postgres.dir.join("data"))
            .stdout(Stdio::null())
            .status()?;
        if !made.success() {
            return Err("initdb failed".into());
        }
        postgres.start_again()?;
        Ok(postgres)
    }

    pub(crate) fn start_again(&mut self) -> Result<(), Failure> {
        let mut command = self.command("postgres")?;
        command
            .arg("-D")
            .arg(self.dir.join("data"))
            .arg("-k")
            .arg(&self.dir)
            .args(["-c", "listen_addresses=", "-c", "logging_collector=on"])
            .stderr(Stdio::null());
        let mut process = Process::spawn(&mut command)?;
        let answers = || -> Result<bool, Failure> {
            // It does not start while children of one that was killed still end.
            if process.0.try_wait()?.is_some() {
                process = Process::spawn(&mut command)?;
            }
            let asked = self
                .command("pg_isready")?
                .arg("-q")
                .arg("-h")
                .arg(&self.dir)
                .status();
            Ok(asked?.success())
        };
        let mut answers = answers;
        until("PostgreSQL", || answers().unwrap_or(false))?;
        self.process = Some(process);
        Ok(())
    }

    /// `kill -9` of its first process, whose children then end by themselves.
    pub(crate) fn kill(&mut self) {
        drop(self.process.take());
    }

    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://postgres@localhost/postgres?host={}",
            self.dir.display()
        )
    }

    fn command(&self, program: &str) -> Result<Command, Failure> {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(&self.dir).env("LC_ALL", "C");
        if let Some((user, group)) = other_user()? {
            command.uid(user).gid(group);
        }
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Its children too.
            process.signal("-QUIT");
            let _ = process.0.wait();
        }
    }
}

/// The folder of PostgreSQL's programs: the variable's, or of the latest version that Debian has.
fn programs() -> Result<PathBuf, Failure> {
    if let Some(bin) = std::env::var_os("POSTGRES_BIN") {
        return Ok(bin.into());
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let folders = versions.flatten().map(|version| version.path().join("bin"));
    let latest = folders.filter(|bin| bin.join("initdb").exists()).max();
    latest.ok_or_else(|| "PostgreSQL's programs are not found: set POSTGRES_BIN".into())
}

/// PostgreSQL refuses to run as root: then it runs as the user that its package makes.
fn other_user() -> Result<Option<(u32, u32)>, Failure> {
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Ok(None);
    }
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postgres:"));
    let mut fields = line
        .ok_or("there is no user named postgres")?
        .split(':')
        .skip(2);
    let mut number = || fields.next().and_then(|field| field.parse().ok());
    let ids = number().zip(number()).ok_or("its entry cannot be read")?;
    Ok(Some(ids))
}

/// One instance of `secure_api`, on a port of its own.
pub(crate) struct Instance {
    process: Process,
    pub(crate) url: String,
}

impl Instance {
    pub(crate) fn start(dir: &Path, database: &str, redis: &str) -> Result<Self, Failure> {
        let program = std::env::current_exe()?.with_file_name("secure_api");
        if !program.exists() {
            return Err("build it first: cargo build --all-features --examples".into());
        }
        let mut command = Command::new(program);
        command
            .current_dir(dir)
            .env_clear()
            .envs([
                ("BIND_ADDR", "127.0.0.1:0"),
                ("DATABASE_URL", database),
                ("REDIS_URL", redis),
                (
                    "JWT_SECRET",
                    "hex:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                ),
                (
                    "JWT_REFRESH_SECRET",
                    "hex:60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                ),
                ("TRUSTED_PROXIES", "127.0.0.1"),
                ("RATE_LIMIT_WINDOW_MS", "600000"),
                ("RATE_LIMIT_MAX_REQUESTS", &LIMIT.to_string()),
                ("RUST_LOG", "error"),
            ])
            .stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let mut line = String::new();
        let stdout = process.0.stdout.as_mut().ok_or("no output")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let url = line.trim_end().strip_prefix("secure_api listening on ");
        let url = url.ok_or("an instance did not start")?.to_owned();
        Ok(Self { process, url })
    }

    /// Asks it to end; whether it did so by itself, in time and well.
    pub(crate) fn stop(mut self) -> bool {
        self.process.signal("-TERM");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            if let Ok(Some(status)) = self.process.0.try_wait() {
                return status.success();
            }
            thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

fn until(what: &str, mut ready: impl FnMut() -> bool) -> Result<(), Failure> {
    let begun = Instant::now();
    while !ready() {
        if begun.elapsed() > Duration::from_secs(60) {
            return Err(format!("{what} does not answer").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
