//! A real clamd with signatures of our own, over TCP and a Unix socket. Runs where
//! `PORTCULLIS_TEST_CLAMD` names the daemon's binary, and is skipped elsewhere.
#![cfg(feature = "clamd")]

use std::{
    convert::Infallible,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Rejection,
    guarded::GuardedBody,
    upload::{KIB, MIB, Spool, UploadLayer, UploadPolicy, scan::Clamd},
};
use tower::{Layer, ServiceExt, service_fn};

struct Daemon {
    process: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Daemon {
    /// Starts a daemon that knows one word; `None` where there is no binary.
    async fn start() -> Option<Self> {
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

    fn tcp(&self) -> Clamd {
        Clamd::at(&format!("127.0.0.1:{}", self.port))
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("clamd.sock")
    }

    fn unix(&self) -> Clamd {
        Clamd::at(&self.socket().display().to_string())
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn send(policy: &UploadPolicy, file: &str) -> (u16, &'static str) {
    let body = format!(
        "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n\
         {file}\r\n--B--\r\n"
    );
    let handler = async |request: Request<GuardedBody<Full<Bytes>>>| {
        request.into_body().collect().await.unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let request = Request::post("/")
        .header("content-type", "multipart/form-data; boundary=B")
        .body(Full::from(body))
        .unwrap();
    let service = UploadLayer::new(policy.clone()).layer(service_fn(handler));
    let response = service.oneshot(request).await.unwrap();
    let reason = response
        .extensions()
        .get::<Rejection>()
        .map_or("", Rejection::reason);
    (response.status().as_u16(), reason)
}

fn policy(clamd: Clamd) -> UploadPolicy {
    UploadPolicy::new(["text/plain"])
        .unwrap()
        .scan_with(clamd)
        .scan_timeout(Duration::from_secs(5))
}

#[tokio::test]
async fn a_real_daemon_judges() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let fill = |bytes: u64| "fine words ".repeat(bytes as usize / 11);
    for clamd in [daemon.tcp(), daemon.unix()] {
        for spooled in [false, true] {
            let mut policy = policy(clamd.clone());
            if spooled {
                policy = policy.spool(Spool::new(16 * MIB).memory(64 * KIB));
            }
            assert_eq!(send(&policy, "clean").await, (200, ""));
            assert_eq!(send(&policy, &fill(300 * KIB)).await, (200, ""));
            let marked = format!("{}PORTCULLIS-MARKER{}", fill(100 * KIB), fill(100 * KIB));
            assert_eq!(send(&policy, &marked).await, (422, "malware_found"));
            // Above the daemon's MaxFileSize, which it would pass over in silence by default.
            assert_eq!(
                send(&policy, &fill(800 * KIB)).await,
                (413, "too_large_to_scan")
            );
        }
        // Above what we may send it.
        let small = policy(clamd.clone().max_bytes(10 * KIB));
        assert_eq!(
            send(&small, &fill(11 * KIB)).await,
            (413, "too_large_to_scan")
        );
        assert_eq!(send(&small, &fill(9 * KIB)).await, (200, ""));
    }

    // Many at once, two at a time.
    let two = policy(daemon.tcp().max_scans(2));
    let many = (0..16).map(|at| {
        let marked = if at % 4 == 0 {
            "PORTCULLIS-MARKER"
        } else {
            "clean"
        };
        send(&two, marked)
    });
    let statuses = futures_util::future::join_all(many).await;
    let found = statuses.iter().filter(|outcome| outcome.0 == 422).count();
    let clean = statuses.iter().filter(|outcome| outcome.0 == 200).count();
    assert_eq!((found, clean), (4, 12));

    let (tcp, unix) = (policy(daemon.tcp()), policy(daemon.unix()));
    daemon.stop();
    assert_eq!(send(&tcp, "clean").await, (503, "scanner_unavailable"));
    assert_eq!(send(&unix, "clean").await, (503, "scanner_unavailable"));
}

#[tokio::test]
async fn a_daemon_that_accepts_and_says_nothing_is_timed() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let policy = policy(Clamd::tcp(address)).scan_timeout(Duration::from_millis(200));
    assert_eq!(send(&policy, "clean").await, (503, "scanner_unavailable"));
    drop(listener);
}

#[tokio::test]
async fn nobody_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let gone = Clamd::tcp(address);
    assert!(gone.ping().await.is_err());
    assert_eq!(
        send(&policy(gone), "clean").await,
        (503, "scanner_unavailable")
    );
    let gone = Clamd::unix("/nonexistent/clamd.sock");
    assert_eq!(
        send(&policy(gone), "clean").await,
        (503, "scanner_unavailable")
    );
}
