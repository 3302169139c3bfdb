//! A real clamd with signatures of our own, over TCP and a Unix socket. Runs where
//! `PORTCULLIS_TEST_CLAMD` names the daemon's binary, and is skipped elsewhere.
#![cfg(feature = "clamd")]

mod bodies;
mod support;

use std::{
    convert::Infallible,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bodies::{Script, Step};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use portcullis::{
    Rejection,
    guarded::GuardedBody,
    upload::{KIB, MIB, Spool, UploadLayer, UploadPolicy, scan::Clamd},
};
use support::clamd::Daemon;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::{Layer, ServiceExt, service_fn};

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
            // Above its StreamMaxLength: it answers, and takes no more.
            assert_eq!(
                send(&policy, &fill(4 * MIB)).await,
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

/// A host that answers no connection is not waited for as long as a scan.
#[tokio::test(start_paused = true)]
async fn a_connection_that_does_not_come_about_is_timed() {
    // Nobody accepts, and the queue has one place.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = tokio::net::TcpStream::connect(address).await.unwrap();

    let clamd = Clamd::tcp(address).connect_timeout(Duration::from_secs(3));
    let policy = policy(clamd.clone()).scan_timeout(Duration::from_secs(60));
    let start = tokio::time::Instant::now();
    assert_eq!(send(&policy, "clean").await, (503, "scanner_unavailable"));
    assert_eq!(start.elapsed().as_secs(), 3);
    assert!(clamd.ping().await.is_err());
    assert_eq!(start.elapsed().as_secs(), 6);
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

/// Speaks as clamd does, and finds nothing.
async fn accepts_everything(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut command = [0; 10];
            stream.read_exact(&mut command).await?;
            loop {
                let size = stream.read_u32().await?;
                if size == 0 {
                    return stream.write_all(b"stream: OK\0").await;
                }
                let mut chunk = vec![0; size as usize];
                stream.read_exact(&mut chunk).await?;
            }
        });
    }
}

async fn send_slowly(policy: UploadPolicy, body: Script) -> (u16, &'static str) {
    let handler = async |request: Request<GuardedBody<Script>>| {
        request.into_body().collect().await.unwrap();
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
    };
    let request = Request::post("/").header("content-type", "multipart/form-data; boundary=B");
    let service = UploadLayer::new(policy).layer(service_fn(handler));
    let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
    let rejection = response.extensions().get::<Rejection>();
    let reason = rejection.map_or("", Rejection::reason);
    (response.status().as_u16(), reason)
}

/// How many scans are at the daemon at once: no more than allowed, however many wait.
#[tokio::test]
async fn no_more_scans_at_once_than_allowed() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clamd = Clamd::tcp(listener.local_addr().unwrap()).max_scans(2);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, peak) = (Arc::clone(&now), Arc::clone(&most));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (now, most) = (Arc::clone(&counted), Arc::clone(&peak));
            tokio::spawn(async move {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                let mut command = [0; 10];
                stream.read_exact(&mut command).await?;
                loop {
                    let size = stream.read_u32().await?;
                    if size == 0 {
                        // Others have every chance to come in now.
                        for _ in 0..50 {
                            tokio::task::yield_now().await;
                        }
                        now.fetch_sub(1, SeqCst);
                        return stream.write_all(b"stream: OK\0").await;
                    }
                    let mut chunk = vec![0; size as usize];
                    stream.read_exact(&mut chunk).await?;
                }
            });
        }
    });
    let policy = policy(clamd);
    let many = (0..12).map(|_| send(&policy, "clean"));
    for outcome in futures_util::future::join_all(many).await {
        assert_eq!(outcome, (200, ""));
    }
    assert_eq!(most.load(SeqCst), 2);
}

#[tokio::test]
async fn slow_clients_hold_no_place_that_others_want() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let clamd = Clamd::tcp(listener.local_addr().unwrap())
        .max_scans(2)
        .give_way(Duration::from_millis(100));
    tokio::spawn(accepts_everything(listener));
    let policy = policy(clamd);
    let head = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\n";
    let half = format!("{head}{}", "fine words ".repeat(1_000));
    let slow = |policy: &UploadPolicy| {
        let body = Script::frames([half.clone()]).then(Step::Stall);
        tokio::spawn(send_slowly(policy.clone(), body))
    };
    // Nobody else wants their places, so they keep them.
    let (first, second) = (slow(&policy), slow(&policy));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!first.is_finished() && !second.is_finished());
    let start = Instant::now();
    let many = (0..10).map(|_| send(&policy, "clean"));
    for outcome in futures_util::future::join_all(many).await {
        assert_eq!(outcome, (200, ""));
    }
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    for slow in [first, second] {
        if slow.is_finished() {
            assert_eq!(slow.await.unwrap(), (503, "scanner_unavailable"));
        } else {
            slow.abort();
        }
    }
}
