//! A clamd of its own, with two signatures, where `PORTCULLIS_TEST_CLAMD` names the binary.

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use portcullis::upload::scan::Clamd;

pub struct Daemon {
    process: Child,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Daemon {
    /// Starts a daemon that knows one word and the EICAR test file; `None` where there is no binary.
    pub async fn start() -> Option<Self> {
        let binary = std::env::var_os("PORTCULLIS_TEST_CLAMD").filter(|path| !path.is_empty());
        let Some(binary) = binary else {
            eprintln!("skipped: PORTCULLIS_TEST_CLAMD names no clamd");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let database = dir.path().join("db");
        fs::create_dir(&database).unwrap();
        let word: String = "PORTCULLIS-MARKER"
            .bytes()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        fs::write(
            database.join("test.ndb"),
            format!("Test.Marker:0:*:{word}\n"),
        )
        .unwrap();
        // Its size and digest: what it is found by, also inside of other files.
        fs::write(
            database.join("test.hdb"),
            "44d88612fea8a8f36de82e1278abb02f:68:Test.Eicar\n",
        )
        .unwrap();
        let path = dir.path().display();
        let config = format!(
            "Foreground yes\nDatabaseDirectory {path}/db\nTemporaryDirectory {path}\n\
             LocalSocket {path}/clamd.sock\nTCPAddr 127.0.0.1\nTCPSocket {port}\n\
             StreamMaxLength 1M\nMaxFileSize 512K\nMaxScanSize 512K\nAlertExceedsMax yes\n\
             MaxThreads 4\n"
        );
        fs::write(dir.path().join("clamd.conf"), config).unwrap();
        let process = Command::new(binary)
            .arg("-c")
            .arg(dir.path().join("clamd.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { process, dir, port };
        for _ in 0..300 {
            if daemon.tcp().ping().await.is_ok() && daemon.unix().ping().await.is_ok() {
                return Some(daemon);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("clamd does not answer");
    }

    pub fn tcp(&self) -> Clamd {
        Clamd::at(&format!("127.0.0.1:{}", self.port))
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("clamd.sock")
    }

    pub fn unix(&self) -> Clamd {
        Clamd::at(&self.socket().display().to_string())
    }

    pub fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}
