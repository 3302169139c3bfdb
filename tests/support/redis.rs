//! A private Redis (or Valkey), alone on a Unix socket or as a cluster on free ports.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
};

use tempfile::TempDir;

use super::daemon::{Daemon, binary, free_port, until};

pub struct Redis {
    daemon: Option<Daemon>,
    binary: PathBuf,
    settings: Vec<String>,
    dir: TempDir,
}

impl Redis {
    /// Starts a server that holds nothing; `None` where `PORTCULLIS_TEST_REDIS` names none.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with options of its command line.
    pub fn start_with(settings: &[&str]) -> Option<Self> {
        let mut redis = Self {
            daemon: None,
            binary: binary("PORTCULLIS_TEST_REDIS")?.into(),
            settings: settings
                .iter()
                .map(|setting| (*setting).to_owned())
                .collect(),
            dir: tempfile::Builder::new().prefix("redis").tempdir().unwrap(),
        };
        redis.start_again();
        Some(redis)
    }

    /// Starts the server on the data that it left.
    pub fn start_again(&mut self) {
        let mut command = Command::new(&self.binary);
        command
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(self.dir.path())
            .arg("--unixsocket")
            .arg(self.socket())
            .args(&self.settings);
        self.daemon = Some(Daemon::spawn(&mut command, "-KILL"));
        until("Redis does not answer", || self.ask("PING") == "+PONG");
    }

    /// A server that is reached on a port too, and one that copies all that happens there.
    pub fn start_with_replica() -> Option<[(Self, u16); 2]> {
        let [first, second] = [free_port(), free_port()];
        let on = |port: u16| {
            let port = port.to_string();
            let settings = ["--bind", "127.0.0.1", "--repl-diskless-sync-delay", "0"];
            Self::start_with(&[&["--port", &port][..], &settings].concat())
        };
        let servers = [(on(first)?, first), (on(second)?, second)];
        servers[1].0.follow(first);
        Some(servers)
    }

    /// Becomes a replica of the server at a port, and waits until it holds all that is there.
    pub fn follow(&self, port: u16) {
        let accepted = self.ask(&format!("REPLICAOF 127.0.0.1 {port}"));
        assert!(accepted.starts_with("+OK"), "{accepted}");
        until("the replica does not follow", || {
            let state = self.answer("INFO replication");
            state.contains("master_link_status:up")
                && offset(&state) >= offset(&answer(port, "INFO replication"))
        });
    }

    /// Becomes a primary.
    pub fn promote(&self) {
        assert_eq!(self.ask("REPLICAOF NO ONE"), "+OK");
    }

    /// Kills it: what is not in a file is gone.
    pub fn kill(&mut self) {
        drop(self.daemon.take());
    }

    /// It goes on to hold its connections and answers nothing.
    pub fn stall(&self) {
        self.daemon.as_ref().unwrap().signal("STOP");
    }

    pub fn go_on(&self) {
        self.daemon.as_ref().unwrap().signal("CONT");
    }

    /// The first line of the answer to a command of words without blanks.
    pub fn ask(&self, command: &str) -> String {
        let Ok(mut stream) = UnixStream::connect(self.socket()) else {
            return String::new();
        };
        let sent = stream.write_all(format!("{command}\r\n").as_bytes());
        line(sent.is_ok().then_some(stream))
    }

    /// The whole answer to a command of words without blanks.
    pub fn answer(&self, command: &str) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream
            .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
            .unwrap();
        std::io::read_to_string(stream).unwrap()
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }
}

/// How much of what was written in a replication a server has.
fn offset(state: &str) -> u64 {
    let of = |name| state.lines().find_map(|line| line.strip_prefix(name));
    let offset = of("slave_repl_offset:").or(of("master_repl_offset:"));
    offset.map_or(0, |offset| offset.parse().unwrap())
}

/// Three masters, each with a third of the slots.
pub struct RedisCluster {
    nodes: Vec<(Daemon, u16)>,
    _dir: TempDir,
}

impl RedisCluster {
    pub fn start() -> Option<Self> {
        let binary = binary("PORTCULLIS_TEST_REDIS")?;
        let dir = tempfile::Builder::new()
            .prefix("cluster")
            .tempdir()
            .unwrap();
        let mut nodes = Vec::new();
        let mut buses = Vec::new();
        for node in 0..3 {
            let (port, bus) = free_ports();
            let folder = dir.path().join(node.to_string());
            std::fs::create_dir(&folder).unwrap();
            let mut command = Command::new(&binary);
            command
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--cluster-enabled",
                    "yes",
                ])
                .args(["--port", &port.to_string()])
                .args(["--cluster-node-timeout", "5000", "--dir"])
                .arg(folder);
            nodes.push((Daemon::spawn(&mut command, "-KILL"), port));
            buses.push(bus);
            until("a node does not answer", || ask(port, "PING") == "+PONG");
        }
        for (node, slots) in [0..=5460, 5461..=10922, 10923..=16383]
            .into_iter()
            .enumerate()
        {
            let port = nodes[node].1;
            let slots: Vec<_> = slots.map(|slot: u16| slot.to_string()).collect();
            let add = format!("CLUSTER ADDSLOTS {}", slots.join(" "));
            assert_eq!(ask(port, &add), "+OK");
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", nodes[0].1, buses[0]);
            assert_eq!(ask(port, &meet), "+OK");
        }
        for (_, port) in &nodes {
            until("the cluster is not complete", || {
                let known = answer(*port, "CLUSTER INFO");
                known.contains("cluster_state:ok") && known.contains("cluster_known_nodes:3")
            });
        }
        Some(Self { nodes, _dir: dir })
    }

    pub fn urls(&self) -> Vec<String> {
        let url = |(_, port): &(_, u16)| format!("redis://127.0.0.1:{port}");
        self.nodes.iter().map(url).collect()
    }

    /// Deletes all keys.
    pub fn flush(&self) {
        for (_, port) in &self.nodes {
            assert_eq!(ask(*port, "FLUSHALL"), "+OK");
        }
    }

    /// Kills a node, and its third of the keys with it.
    pub fn kill(&mut self, node: usize) {
        drop(self.nodes.remove(node));
    }

    /// How many keys each node holds.
    pub fn sizes(&self) -> Vec<u64> {
        let size = |(_, port): &(_, u16)| ask(*port, "DBSIZE")[1..].parse().unwrap();
        self.nodes.iter().map(size).collect()
    }
}

/// A port for clients and the one for the other nodes, which stands 10,000 further up.
fn free_ports() -> (u16, u16) {
    loop {
        let port = free_port();
        if let Some(bus) = port.checked_add(10_000)
            && TcpListener::bind(("127.0.0.1", bus)).is_ok()
        {
            return (port, bus);
        }
    }
}

fn ask(port: u16, command: &str) -> String {
    let stream = TcpStream::connect(("127.0.0.1", port)).and_then(|mut stream| {
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        Ok(stream)
    });
    line(stream.ok())
}

fn line(stream: Option<impl std::io::Read>) -> String {
    let mut line = String::new();
    if let Some(stream) = stream {
        let _ = BufReader::new(stream).read_line(&mut line);
    }
    line.trim_end().to_owned()
}

/// All lines of the answer, read to the end of the connection.
fn answer(port: u16, command: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .write_all(format!("{command}\r\nQUIT\r\n").as_bytes())
        .unwrap();
    std::io::read_to_string(stream).unwrap()
}
