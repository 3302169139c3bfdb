//! Uploads over real sockets, HTTP/1 and HTTP/2: whatever a handler does with a body, a refusal is
//! answered as one; slow clients and those that go away cost the others nothing.
#![cfg(all(feature = "upload", feature = "axum"))]

mod bodies;

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Multipart},
    routing::post,
};
use bodies::form::{FORM, file, form, png};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Head,
    guarded::GuardedBody,
    upload::{CheckedUpload, MIB, Spool, UploadLayer, UploadPolicy},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service, service_fn};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Guarded = GuardedBody<Incoming>;
type Answer = Response<Full<Bytes>>;

/// Serves on a free port until the test ends.
async fn serve<S, B>(service: S) -> SocketAddr
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), service);
                let _ = connection.await;
            });
        }
    });
    address
}

/// What a client sends: pieces, and then its end, or nothing for ever.
struct Sent {
    pieces: Vec<Vec<u8>>,
    stalls: bool,
}

impl Sent {
    fn whole(bytes: &[u8]) -> Self {
        Self {
            pieces: bytes.chunks(1_000).map(<[u8]>::to_vec).collect(),
            stalls: false,
        }
    }

    fn stalled(bytes: &[u8]) -> Self {
        Self {
            stalls: true,
            ..Self::whole(bytes)
        }
    }

    fn body(self) -> impl Body<Data = Bytes, Error = io::Error> + Send + Unpin {
        let pieces = futures_util::stream::iter(self.pieces);
        let pieces = pieces.map(|piece| Ok(Frame::data(Bytes::from(piece))));
        let stalls = self.stalls;
        let end = futures_util::stream::once(async move {
            if stalls {
                std::future::pending::<()>().await;
            }
            Ok(Frame::data(Bytes::new()))
        });
        StreamBody::new(Box::pin(pieces.chain(end)))
    }
}

/// The answer to one request; `None` where the connection ended without one.
async fn ask(address: SocketAddr, http2: bool, path: &str, sent: Sent) -> Option<StatusCode> {
    let stream = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let uri = format!("http://{address}{path}");
    let request = Request::post(uri)
        .header("host", "localhost")
        .header("content-type", FORM)
        .body(sent.body())
        .unwrap();
    let answer = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream)
                .await
                .unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    } else {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await
    };
    answer.ok().map(|response| response.status())
}

fn texts(parts: &[&str]) -> Vec<u8> {
    let parts: Vec<_> = parts
        .iter()
        .map(|part| file("a.txt", "text/plain", part.as_bytes()))
        .collect();
    form(&parts)
}

/// What each handler of the matrix does.
async fn handle(
    request: Request<Guarded>,
    kept: Arc<Mutex<Vec<Guarded>>>,
) -> Result<Answer, BoxError> {
    let path = request.uri().path().to_owned();
    let mut body = request.into_body();
    match path.as_str() {
        "/all" => drop(body.collect().await),
        "/half" => {
            let mut read = 0;
            while read < 8_000
                && let Some(frame) = body.frame().await
            {
                read += frame?.data_ref().map_or(0, Bytes::len);
            }
        }
        "/none" => drop(body),
        "/task" => drop(tokio::spawn(body.collect()).await?),
        "/errs" => drop(body.collect().await?),
        "/panics" => drop(body.collect().await.expect("a body that can be read")),
        "/swallows" => while let Some(Ok(_)) = body.frame().await {},
        "/early" => drop(tokio::spawn(body.collect())),
        "/holds" => kept.lock().unwrap().push(body),
        path => panic!("{path}"),
    }
    Ok(Response::new(Full::default()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_handler_and_every_body() {
    let kept = Arc::default();
    let policy = UploadPolicy::new(["text/plain"])
        .unwrap()
        .idle(Duration::from_secs(2))
        .deadline(Duration::from_secs(6));
    let service = UploadLayer::new(policy).layer(service_fn(move |request: Request<Guarded>| {
        handle(request, Arc::clone(&kept))
    }));
    let address = serve(service).await;
    let long = "fine words ".repeat(1_000);
    let good = texts(&[&long, "short", &long]);
    let at_head = [texts(&["MZ\u{1}"]), texts(&[&long])].concat();
    let at_end = texts(&[&long, "short", &format!("{long}<script>")]);
    let stalled = &good[..12_000];
    let handlers = [
        "/all",
        "/half",
        "/none",
        "/task",
        "/errs",
        "/panics",
        "/swallows",
        "/early",
        "/holds",
    ];
    let mut asked = Vec::new();
    for path in handlers {
        let taken = if path == "/holds" { 408 } else { 200 };
        let refused = if path == "/holds" { 408 } else { 422 };
        for http2 in [false, true] {
            for (name, sent, expected) in [
                ("good", Sent::whole(&good), taken),
                ("refused at its head", Sent::whole(&at_head), refused),
                ("refused at its end", Sent::whole(&at_end), refused),
                ("stalled", Sent::stalled(stalled), 408),
            ] {
                asked.push(async move {
                    let answer = tokio::time::timeout(
                        Duration::from_secs(60),
                        ask(address, http2, path, sent),
                    );
                    let status = answer.await.expect("no answer at all");
                    let status = status.map(|status| status.as_u16());
                    assert_eq!(status, Some(expected), "{path} {name}, HTTP/2: {http2}");
                });
            }
        }
    }
    assert_eq!(asked.len(), 72);
    futures_util::future::join_all(asked).await;
}

/// A client that writes all it has before it reads, as many do: it gets the answer, not a reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_last_sees_the_refusal() {
    let handler = async |request: Request<Guarded>| {
        request.into_body().collect().await?;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    };
    let service = UploadLayer::new(UploadPolicy::images()).layer(service_fn(handler));
    let address = serve(service).await;
    let body = form(&[file("a.png", "image/png", &[b'x'; 200_000])]);
    for stated in [false, true] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (framing, body) = if stated {
            (format!("content-length: {}", body.len()), body.clone())
        } else {
            let mut chunks = Vec::new();
            for chunk in body.chunks(9_000) {
                chunks.extend(format!("{:x}\r\n", chunk.len()).bytes());
                chunks.extend(chunk);
                chunks.extend(b"\r\n");
            }
            chunks.extend(b"0\r\n\r\n");
            ("transfer-encoding: chunked".to_owned(), chunks)
        };
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&body).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 422");
    }
    // What says that it is too large is answered before a byte of it was sent.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\ncontent-length: 99999999\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

/// A body that is shorter than it says, and one that ends amid a chunk: neither is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_ends_early_is_no_success() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handler = move |request: Request<Guarded>| {
        let tell = tell.clone();
        async move {
            let upload = CheckedUpload::of(Head::of(&request)).unwrap();
            tokio::spawn(async move { tell.send(upload.accepted().await.is_ok()) });
            request.into_body().collect().await?;
            Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
        }
    };
    let service = UploadLayer::new(UploadPolicy::images()).layer(service_fn(handler));
    let address = serve(service).await;
    let body = form(&[file("a.png", "image/png", &png(9_000))]);
    for framing in ["content-length: 1000000", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head =
            format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\n{framing}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if framing.starts_with('t') {
            stream.write_all(b"ffffff\r\n").await.unwrap();
        }
        // Whole as a form, and not as a body.
        stream.write_all(&body).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!answer.starts_with(b"HTTP/1.1 2"));
    }
    assert_eq!(told.recv().await, Some(false));
    assert_eq!(told.recv().await, Some(false));
}

/// The files without a name that this process has open below `dir`.
fn open_files(dir: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
    let visible = std::fs::read_dir(dir).unwrap().count();
    links.filter(|link| link.starts_with(dir)).count() + visible
}

async fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_clients_do_not_starve_others_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(64 * MIB).memory(0).dir(dir.path());
    let policy = UploadPolicy::images().spool(spool.clone());
    let handler = async |request: Request<Guarded>| {
        request.into_body().collect().await?;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    };
    let service = UploadLayer::new(policy).layer(service_fn(handler));
    let address = serve(service).await;
    let body = form(&[file("a.png", "image/png", &png(500_000))]);
    // Two hundred that stop in the middle of their file.
    let slow: Vec<_> = (0..200)
        .map(|_| tokio::spawn(ask(address, false, "/", Sent::stalled(&body[..9_000]))))
        .collect();
    wait_for("two hundred files", || open_files(dir.path()) == 200).await;
    let quick = (0..20).map(|at| ask(address, at % 2 == 0, "/", Sent::whole(&body)));
    let quick = tokio::time::timeout(
        Duration::from_secs(10),
        futures_util::future::join_all(quick),
    );
    for status in quick.await.expect("starved") {
        assert_eq!(status, Some(StatusCode::OK));
    }
    // They go away, and so does what was kept of theirs.
    for slow in slow {
        slow.abort();
    }
    wait_for("no file", || open_files(dir.path()) == 0).await;
    wait_for("the budget", || spool.free() == 64 * MIB).await;
}

/// The child of [`a_full_disk_is_503_and_leaves_nothing`]: no file of it may be larger than 64 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started with a limit on files by the test below"]
async fn with_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(64 * MIB).memory(0).dir(dir.path());
    let policy = UploadPolicy::images().spool(spool.clone());
    let handler = async |request: Request<Guarded>| {
        request.into_body().collect().await?;
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::default()))
    };
    let service = UploadLayer::new(policy).layer(service_fn(handler));
    let address = serve(service).await;
    for (size, expected) in [(10_000, 200), (500_000, 503), (10_000, 200)] {
        let body = form(&[file("a.png", "image/png", &png(size))]);
        let status = ask(address, false, "/", Sent::whole(&body)).await;
        assert_eq!(status.map(|status| status.as_u16()), Some(expected));
        wait_for("no file", || open_files(dir.path()) == 0).await;
        wait_for("the budget", || spool.free() == 64 * MIB).await;
    }
    println!("seen");
}

#[test]
fn a_full_disk_is_503_and_leaves_nothing() {
    let child = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact with_a_full_disk --ignored --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && told.contains("seen"), "{told}");
}

/// axum's extractors stop at 2 MB on their own; the gate's limit counts where that is lifted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axums_own_limit_has_to_be_lifted() {
    async fn upload(
        mut form: Multipart,
    ) -> Result<String, axum::extract::multipart::MultipartError> {
        let mut bytes = 0;
        while let Some(mut field) = form.next_field().await? {
            while let Some(chunk) = field.chunk().await? {
                bytes += chunk.len();
            }
        }
        Ok(bytes.to_string())
    }
    let gate = || UploadLayer::new(UploadPolicy::images().max_file(4 * MIB));
    let lifted = post(upload)
        .layer::<_, Infallible>(DefaultBodyLimit::disable())
        .layer(gate());
    let router: Router = Router::new()
        .route("/as-it-is", post(upload).layer(gate()))
        .route("/lifted", lifted);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let form_of = |size: usize| form(&[file("a.png", "image/png", &png(size))]);
    for (path, size, expected) in [
        ("/as-it-is", 1_000_000, 200),
        ("/as-it-is", 3_000_000, 413),
        ("/lifted", 3_000_000, 200),
        ("/lifted", 5_000_000, 413),
    ] {
        for http2 in [false, true] {
            let status = ask(address, http2, path, Sent::whole(&form_of(size))).await;
            let status = status.map(|status| status.as_u16());
            assert_eq!(status, Some(expected), "{path} {size}, HTTP/2: {http2}");
        }
    }
}
