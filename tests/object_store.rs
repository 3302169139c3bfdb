//! Checked files into object stores: what was accepted is there whole, and of anything else there is
//! nothing. In memory, on disk, and in an S3 server where `PORTCULLIS_TEST_MOTO` names `moto_server`.
#![cfg(all(feature = "object-store", feature = "axum"))]

mod bodies;

use std::{
    convert::Infallible,
    fmt,
    net::TcpListener,
    path::{Path as FilePath, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, Multipart},
    routing::post,
};
use bodies::{
    Script, Step,
    form::{FORM, field, file, form, png},
};
use bytes::Bytes;
use futures_util::{TryStreamExt as _, stream::BoxStream};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart, aws::AmazonS3Builder, local::LocalFileSystem, memory::InMemory, path::Path,
};
use portcullis::{
    Rejection,
    guarded::GuardedBody,
    upload::{
        CheckedUpload, MIB, UploadLayer, UploadPolicy,
        object_store::{HandOffError, ObjectSink},
        scan::{FileStream, ScanError, ScanVerdict, Scanner},
    },
};
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

/// A store that counts what is begun and ended, and fails where a test says.
#[derive(Clone, Debug)]
struct Watched {
    inner: Arc<dyn ObjectStore>,
    seen: Arc<Seen>,
}

#[derive(Debug)]
struct Seen {
    begun: AtomicUsize,
    completed: AtomicUsize,
    aborted: AtomicUsize,
    puts: AtomicUsize,
    parts: Mutex<Vec<usize>>,
    on_their_way: AtomicUsize,
    most: AtomicUsize,
    /// Which of the calls in the order in which they come fails.
    fails: Mutex<Option<(Call, usize)>>,
    /// Which calls wait until a test lets them go on.
    held: Mutex<Option<Call>>,
    waits: Semaphore,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Call {
    Begin,
    Part,
    Complete,
    Put,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            begun: AtomicUsize::new(0),
            completed: AtomicUsize::new(0),
            aborted: AtomicUsize::new(0),
            puts: AtomicUsize::new(0),
            parts: Mutex::default(),
            on_their_way: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            fails: Mutex::default(),
            held: Mutex::default(),
            waits: Semaphore::new(0),
        }
    }
}

impl Seen {
    /// Waits where a test holds these calls.
    async fn wait(&self, call: Call) {
        if *self.held.lock().unwrap() == Some(call) {
            self.waits.acquire().await.unwrap().forget();
        }
    }

    fn all_aborted(&self) -> bool {
        self.begun.load(Ordering::SeqCst) == self.aborted.load(Ordering::SeqCst)
    }

    fn call(&self, call: Call) -> Result<()> {
        let mut fails = self.fails.lock().unwrap();
        match fails.as_mut() {
            Some((which, 0)) if *which == call => Err(object_store::Error::Generic {
                store: "test",
                source: "told to fail".into(),
            }),
            Some((which, left)) if *which == call => {
                *left -= 1;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("watched")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, at: &Path, what: PutPayload, how: PutOptions) -> Result<PutResult> {
        self.seen.wait(Call::Put).await;
        self.seen.call(Call::Put)?;
        self.seen.puts.fetch_add(1, Ordering::SeqCst);
        self.inner.put_opts(at, what, how).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.seen.call(Call::Begin)?;
        self.seen.begun.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(WatchedUpload {
            inner: self.inner.put_multipart_opts(at, how).await?,
            seen: Arc::clone(&self.seen),
        }))
    }

    async fn get_opts(&self, at: &Path, how: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(at, how).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[derive(Debug)]
struct WatchedUpload {
    inner: Box<dyn MultipartUpload>,
    seen: Arc<Seen>,
}

#[async_trait::async_trait]
impl MultipartUpload for WatchedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let seen = Arc::clone(&self.seen);
        seen.parts.lock().unwrap().push(data.content_length());
        let put = self.inner.put_part(data);
        Box::pin(async move {
            let now = seen.on_their_way.fetch_add(1, Ordering::SeqCst) + 1;
            seen.most.fetch_max(now, Ordering::SeqCst);
            seen.wait(Call::Part).await;
            let done = match seen.call(Call::Part) {
                Ok(()) => {
                    tokio::task::yield_now().await;
                    put.await
                }
                failed => failed,
            };
            seen.on_their_way.fetch_sub(1, Ordering::SeqCst);
            done
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.seen.call(Call::Complete)?;
        self.seen.completed.fetch_add(1, Ordering::SeqCst);
        self.inner.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        self.seen.aborted.fetch_add(1, Ordering::SeqCst);
        self.inner.abort().await
    }
}

/// Finds the word `EVIL`.
struct Words;

impl Scanner for Words {
    async fn scan(&self, mut file: FileStream) -> std::result::Result<ScanVerdict, ScanError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = file.chunk().await {
            bytes.extend(chunk);
        }
        Ok(match memchr::memmem::find(&bytes, b"EVIL") {
            Some(_) => ScanVerdict::Infected {
                name: "evil".into(),
            },
            None => ScanVerdict::Clean,
        })
    }
}

/// What the handler does besides handing files on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Habit {
    #[default]
    Honest,
    /// Fails after the first file.
    Fails,
    /// Panics after the first file.
    Panics,
    /// Leaves out a byte.
    Loses,
    /// Does not commit.
    Forgets,
    /// Stores only the first file.
    Skips,
}

fn router(sink: ObjectSink, habit: Habit) -> Router {
    async fn upload(
        Extension(sink): Extension<ObjectSink>,
        Extension(habit): Extension<Habit>,
        Extension(upload): Extension<CheckedUpload>,
        mut multipart: Multipart,
    ) -> std::result::Result<String, Rejection> {
        let unreadable =
            |_| Rejection::new(portcullis::RejectionKind::BadRequest, "test", "unreadable");
        let mut hand_off = sink.begin(upload);
        let mut files = 0;
        while let Some(mut field) = multipart.next_field().await.map_err(unreadable)? {
            if field.file_name().is_none_or(str::is_empty) {
                continue;
            }
            if habit == Habit::Skips && files > 0 {
                hand_off.skip_file();
                continue;
            }
            files += 1;
            hand_off.begin_file().await?;
            let mut first = true;
            while let Some(mut chunk) = field.chunk().await.map_err(unreadable)? {
                if habit == Habit::Loses && first {
                    chunk = chunk.slice(1..);
                }
                first = false;
                hand_off.write(chunk).await?;
            }
            match habit {
                Habit::Fails => {
                    return Err(Rejection::new(
                        portcullis::RejectionKind::Conflict,
                        "test",
                        "taken",
                    ));
                }
                Habit::Panics => panic!("told to"),
                _ => {}
            }
        }
        if habit == Habit::Forgets {
            return Ok(String::new());
        }
        let stored = hand_off.commit().await?;
        Ok(stored
            .iter()
            .map(|object| format!("{} {}\n", object.location(), object.file().bytes()))
            .collect())
    }
    let policy = UploadPolicy::new(["image/png"])
        .unwrap()
        .max_file(32 * MIB)
        .scan_with(Words);
    Router::new()
        .route("/", post(upload))
        .layer(DefaultBodyLimit::disable())
        .layer(Extension(sink))
        .layer(Extension(habit))
        .layer(UploadLayer::new(policy))
}

async fn send(sink: &ObjectSink, habit: Habit, body: Script) -> (StatusCode, String) {
    let request = Request::post("/")
        .header("content-type", FORM)
        .body(axum::body::Body::new(body))
        .unwrap();
    let response = router(sink.clone(), habit).oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 100_000)
        .await
        .unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

fn picture(size: usize, word: &str) -> Vec<u8> {
    let mut picture = png(size);
    let at = picture.len() - 20;
    picture[at - word.len()..at].copy_from_slice(word.as_bytes());
    picture
}

fn body(pictures: &[Vec<u8>]) -> Vec<u8> {
    let mut parts: Vec<_> = pictures
        .iter()
        .map(|picture| file("a.png", "image/png", picture))
        .collect();
    parts.insert(0, field("note", b"hi"));
    parts.push(file("", "application/octet-stream", b""));
    form(&parts)
}

fn frames(bytes: &[u8]) -> Script {
    Script::trickle(bytes, 50_000)
}

async fn objects(store: &dyn ObjectStore) -> Vec<Path> {
    let list: Vec<_> = store.list(None).try_collect().await.unwrap();
    list.into_iter().map(|object| object.location).collect()
}

/// Aborts go on behind a request that is over.
async fn settled(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

/// Every way in which an upload can end, in one store; `left` tells what is kept of unfinished ones.
async fn every_end(store: Arc<dyn ObjectStore>, part: usize, left: impl AsyncFn() -> usize) {
    let seen = Arc::new(Seen::default());
    let watched = Watched {
        inner: Arc::clone(&store),
        seen: Arc::clone(&seen),
    };
    let sink = ObjectSink::new(Arc::new(watched))
        .prefix("incoming")
        .unwrap();
    let sink = sink.part_bytes(part).in_flight(2);
    let (small, large) = (picture(2_000, "fine"), picture(3 * part + part / 2, "fine"));
    let whole = body(&[small.clone(), large.clone(), small.clone()]);

    // Accepted: all of it is there, in parts of one size, few at a time.
    let (status, told) = send(&sink, Habit::Honest, frames(&whole)).await;
    assert_eq!(status, 200, "{told}");
    let told: Vec<_> = told
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(told.len(), 3);
    for ((location, bytes), expected) in told.iter().zip([&small, &large, &small]) {
        assert_eq!(*bytes, expected.len().to_string());
        assert!(location.starts_with("incoming/") && location.ends_with(".png"));
        let stored = store.get(&Path::parse(location).unwrap()).await.unwrap();
        assert!(stored.bytes().await.unwrap() == *expected);
        store.delete(&Path::parse(location).unwrap()).await.unwrap();
    }
    assert!(seen.most.load(Ordering::SeqCst) <= 4, "two of each file");
    let parts = std::mem::take(&mut *seen.parts.lock().unwrap());
    assert_eq!(parts.iter().filter(|size| **size == part).count(), 3);
    assert!(parts.iter().all(|size| *size <= part));

    // Small ones are put, and only after the verdict.
    let begun = seen.begun.load(Ordering::SeqCst);
    let two = body(&[small.clone(), small.clone()]);
    assert_eq!(send(&sink, Habit::Skips, frames(&two)).await.0, 200);
    assert_eq!(seen.begun.load(Ordering::SeqCst), begun);
    let stored = objects(&*store).await;
    assert_eq!(stored.len(), 1);
    store.delete(&stored[0]).await.unwrap();

    let evil = body(&[large.clone(), picture(3 * part, "EVIL")]);
    let behind = body(&[large.clone(), [&large[..], b"PK\x03\x04"].concat()]);
    let half = &whole[..whole.len() - part];
    for (name, habit, sent, expected) in [
        ("scanner", Habit::Honest, frames(&evil), Some(422)),
        ("check", Habit::Honest, frames(&behind), Some(422)),
        (
            "cut",
            Habit::Honest,
            frames(half).then(Step::Fail),
            Some(400),
        ),
        ("handler fails", Habit::Fails, frames(&whole), Some(409)),
        ("handler forgets", Habit::Forgets, frames(&whole), Some(200)),
        (
            "handler loses bytes",
            Habit::Loses,
            frames(&whole),
            Some(500),
        ),
        ("handler panics", Habit::Panics, frames(&whole), None),
        (
            "client goes away",
            Habit::Honest,
            frames(half).then(Step::Stall),
            None,
        ),
    ] {
        seen.completed.store(0, Ordering::SeqCst);
        seen.aborted.store(0, Ordering::SeqCst);
        seen.begun.store(0, Ordering::SeqCst);
        let request = {
            let sink = sink.clone();
            tokio::spawn(async move { send(&sink, habit, sent).await.0.as_u16() })
        };
        if name == "client goes away" {
            settled(name, async || !seen.parts.lock().unwrap().is_empty()).await;
            request.abort();
        }
        assert_eq!(request.await.ok(), expected, "{name}");
        settled(name, async || left().await == 0).await;
        assert!(objects(&*store).await.is_empty(), "{name}");
        assert_eq!(seen.completed.load(Ordering::SeqCst), 0, "{name}");
        settled(name, async || seen.all_aborted()).await;
        seen.parts.lock().unwrap().clear();
    }
    // The store fails, wherever it may.
    for fails in [
        (Call::Begin, 0),
        (Call::Begin, 1),
        (Call::Part, 0),
        (Call::Part, 3),
        (Call::Complete, 0),
        (Call::Complete, 1),
        (Call::Put, 0),
    ] {
        *seen.fails.lock().unwrap() = Some(fails);
        seen.aborted.store(0, Ordering::SeqCst);
        seen.begun.store(0, Ordering::SeqCst);
        let (status, told) = send(&sink, Habit::Honest, frames(&whole)).await;
        assert_eq!(status, 503, "{fails:?} {told}");
        settled("store fails", async || left().await == 0).await;
        assert!(objects(&*store).await.is_empty(), "{fails:?}");
        settled("the others are aborted", async || seen.all_aborted()).await;
    }
    for nth in [0, 1] {
        *seen.fails.lock().unwrap() = Some((Call::Put, nth));
        assert_eq!(send(&sink, Habit::Honest, frames(&two)).await.0, 503);
        assert!(objects(&*store).await.is_empty(), "put {nth}");
    }
}

/// Large enough for several frames, small enough for a quick test.
const PART: usize = 300_000;

#[tokio::test]
async fn in_memory() {
    let store = Arc::new(InMemory::new());
    every_end(store, PART, async || 0).await;
}

#[tokio::test]
async fn on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let files = |dir: &FilePath| -> usize {
        let below = dir.join("incoming");
        std::fs::read_dir(below).map_or(0, Iterator::count)
    };
    every_end(Arc::new(store), PART, async || files(dir.path())).await;
}

#[tokio::test]
async fn the_type_is_stored_where_that_is_asked_for() {
    let store = Arc::new(InMemory::new());
    let sink = ObjectSink::new(Arc::clone(&store) as _).typed();
    let (status, told) = send(&sink, Habit::Honest, frames(&body(&[picture(500, "fine")]))).await;
    assert_eq!(status, 200);
    let location = Path::parse(told.split(' ').next().unwrap()).unwrap();
    let stored = store.get(&location).await.unwrap();
    let kind = stored.attributes.get(&object_store::Attribute::ContentType);
    assert_eq!(kind.map(AsRef::as_ref), Some("image/png"));
}

#[tokio::test]
async fn faults_are_told_again() {
    let seen = Arc::new(Seen::default());
    *seen.fails.lock().unwrap() = Some((Call::Begin, 0));
    let store = Watched {
        inner: Arc::new(InMemory::new()),
        seen,
    };
    let sink = ObjectSink::new(Arc::new(store)).part_bytes(10);
    let policy = UploadPolicy::new(["image/png"]).unwrap();
    let handler = move |request: Request<GuardedBody<Script>>| {
        let sink = sink.clone();
        async move {
            let upload = CheckedUpload::of(portcullis::Head::of(&request)).unwrap();
            let mut hand_off = sink.begin(upload);
            // Nothing was read yet, so there is no file.
            let early = hand_off.begin_file().await.unwrap_err();
            assert!(matches!(early, HandOffError::Mismatch));
            let early = hand_off.write(Bytes::from_static(b"x")).await.unwrap_err();
            assert!(matches!(early, HandOffError::Mismatch));
            request.into_body().collect().await.unwrap();
            let mut failures = 0;
            for _ in 0..5 {
                let begun = hand_off.begin_file().await;
                let wrote = hand_off.write(Bytes::from_static(&[0; 100])).await;
                if let Err(error @ HandOffError::Store(_)) = wrote {
                    let source = std::error::Error::source(&error).unwrap();
                    assert!(source.to_string().contains("told to fail"));
                    failures += 1;
                }
                drop(begun);
            }
            assert!(failures >= 2, "{failures}");
            assert!(hand_off.commit().await.is_err());
            Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<Bytes>::default()))
        }
    };
    let request = Request::post("/").header("content-type", FORM);
    let request = request
        .body(frames(&body(&[picture(500, "fine")])))
        .unwrap();
    let service = tower::Layer::layer(&UploadLayer::new(policy), tower::service_fn(handler));
    assert_eq!(service.oneshot(request).await.unwrap().status(), 200);
    assert!(
        ObjectSink::new(Arc::new(InMemory::new()))
            .prefix("a//b")
            .is_err()
    );
}

/// Sends `body`, and hands what the handler is given of it to `handler`.
async fn with_handler<F, T>(body: Script, handler: F) -> StatusCode
where
    F: Fn(CheckedUpload, GuardedBody<Script>) -> T,
    T: Future<Output = ()>,
{
    let policy = UploadPolicy::new(["image/png"]).unwrap();
    let handler = async |request: Request<GuardedBody<Script>>| {
        let upload = CheckedUpload::of(portcullis::Head::of(&request)).unwrap();
        handler(upload, request.into_body()).await;
        Ok::<_, Infallible>(http::Response::new(http_body_util::Full::<Bytes>::default()))
    };
    let request = Request::post("/").header("content-type", FORM);
    let service = tower::Layer::layer(&UploadLayer::new(policy), tower::service_fn(handler));
    let response = service.oneshot(request.body(body).unwrap()).await.unwrap();
    response.status()
}

fn watched() -> (Arc<InMemory>, Arc<Seen>, ObjectSink) {
    let (store, seen) = (Arc::new(InMemory::new()), Arc::new(Seen::default()));
    let sink = ObjectSink::new(Arc::new(Watched {
        inner: Arc::clone(&store) as _,
        seen: Arc::clone(&seen),
    }));
    (store, seen, sink)
}

/// The files of a refused upload may all be whole; a task that outlives the answer cannot commit them.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_committed() {
    let (store, seen, sink) = watched();
    let picture = picture(2_000, "fine");
    let whole = form(&[file("a.png", "image/png", &picture)]);
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let body = Script::trickle(&[&whole[..], b"behind the end"].concat(), 1_000);
    let status = with_handler(body, async |upload, body| {
        let (sink, picture) = (sink.clone(), Bytes::from(picture.clone()));
        let tell = tell.lock().unwrap().take().unwrap();
        tokio::spawn(async move {
            assert!(body.collect().await.is_err());
            assert!(upload.files()[0].is_complete());
            let mut hand_off = sink.begin(upload);
            hand_off.begin_file().await.unwrap();
            hand_off.write(picture).await.unwrap();
            tell.send(hand_off.commit().await).unwrap();
        });
    });
    assert_eq!(status.await, 400);
    let committed = told.await.unwrap();
    assert!(matches!(committed, Err(HandOffError::NotAccepted)));
    assert_eq!(seen.puts.load(Ordering::SeqCst), 0);
    assert!(objects(&*store).await.is_empty());
}

/// All bytes of the file are there, and the rest of the upload may yet be refused.
#[tokio::test(start_paused = true)]
async fn a_commit_waits_for_the_verdict_on_all() {
    let (store, seen, sink) = watched();
    let picture = picture(2_000, "fine");
    let first = file("a.png", "image/png", &picture);
    let body = Script::frames([first, b"--B\r\n".to_vec()]).then(Step::Stall);
    let status = with_handler(body, async |upload, mut body| {
        while !upload
            .files()
            .first()
            .is_some_and(|file| file.is_complete())
        {
            body.frame().await.unwrap().unwrap();
        }
        let mut hand_off = sink.begin(upload);
        hand_off.begin_file().await.unwrap();
        hand_off.write(Bytes::from(picture.clone())).await.unwrap();
        let (committed, _) = tokio::join!(hand_off.commit(), body.collect());
        panic!("{committed:?}");
    });
    assert_eq!(status.await, 408);
    assert_eq!(seen.puts.load(Ordering::SeqCst), 0);
    assert!(objects(&*store).await.is_empty());
}

/// Whoever goes away during the commit knows no location, so nothing may stay under one.
#[tokio::test]
async fn a_commit_that_nobody_hears_of_is_undone() {
    let (store, seen, sink) = watched();
    *seen.held.lock().unwrap() = Some(Call::Put);
    let picture = picture(2_000, "fine");
    let body = Script::frames([form(&[file("a.png", "image/png", &picture)])]);
    let status = with_handler(body, async |upload, body| {
        body.collect().await.unwrap();
        let mut hand_off = sink.begin(upload);
        hand_off.begin_file().await.unwrap();
        hand_off.write(Bytes::from(picture.clone())).await.unwrap();
        let mut commit = Box::pin(hand_off.commit());
        // It is asked until it waits for the store, and then dropped.
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut commit).is_pending());
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(status.await, 200);
    assert_eq!(seen.puts.load(Ordering::SeqCst), 0);
    seen.waits.add_permits(1);
    settled("put, and deleted again", async || {
        seen.puts.load(Ordering::SeqCst) == 1 && objects(&*store).await.is_empty()
    })
    .await;
}

/// A store that does not keep up slows the client, and memory stays bounded.
#[tokio::test(start_paused = true)]
async fn a_slow_store_slows_the_writer() {
    const PART: usize = 1_000;
    let (store, seen, sink) = watched();
    let sink = sink.part_bytes(PART).in_flight(2);
    *seen.held.lock().unwrap() = Some(Call::Part);
    let picture = picture(40 * PART, "fine");
    let body = Script::frames([form(&[file("a.png", "image/png", &picture)])]);
    let pieces: Vec<_> = picture.chunks(PART).map(Bytes::copy_from_slice).collect();
    let location = Mutex::new(None);
    let status = with_handler(body, async |upload, body| {
        body.collect().await.unwrap();
        let mut hand_off = sink.begin(upload);
        hand_off.begin_file().await.unwrap();
        let mut written = 0;
        while let Some(piece) = pieces.get(written) {
            let write = hand_off.write(piece.clone());
            let mut write = std::pin::pin!(write);
            let second = Duration::from_secs(1);
            if tokio::time::timeout(second, &mut write).await.is_err() {
                // Two on their way, one full, one in the hands of the task, one before it.
                assert_eq!(seen.on_their_way.load(Ordering::SeqCst), 2);
                assert!((3..=5).contains(&written), "{written}");
                seen.waits.add_permits(1_000);
                write.await.unwrap();
            }
            written += 1;
        }
        assert!(seen.waits.available_permits() > 0, "it never waited");
        let stored = hand_off.commit().await.unwrap();
        *location.lock().unwrap() = Some(stored[0].location().to_owned());
    });
    assert_eq!(status.await, 200);
    assert!(seen.most.load(Ordering::SeqCst) <= 2);
    let location = location.lock().unwrap().take().unwrap();
    let stored = store.get(&Path::parse(location).unwrap()).await.unwrap();
    assert!(stored.bytes().await.unwrap() == picture);
}

#[tokio::test]
async fn a_file_that_is_skipped_is_passed_over() {
    let (store, _, sink) = watched();
    // No part and none on its way is one of each.
    let sink = sink.part_bytes(0).in_flight(0);
    let (first, second) = (picture(500, "first"), picture(700, "second"));
    let files = [&first, &second].map(|picture| file("a.png", "image/png", picture));
    let status = with_handler(Script::frames([form(&files)]), async |upload, body| {
        body.collect().await.unwrap();
        let mut hand_off = sink.begin(upload);
        hand_off.skip_file();
        hand_off.begin_file().await.unwrap();
        hand_off.write(Bytes::from(second.clone())).await.unwrap();
        let stored = hand_off.commit().await.unwrap();
        assert_eq!(stored.len(), 1);
        assert_eq!(stored[0].file().bytes(), second.len() as u64);
    });
    assert_eq!(status.await, 200);
    let stored = store.get(&objects(&*store).await[0]).await.unwrap();
    assert!(stored.bytes().await.unwrap() == second);
}

/// An S3 server of its own, stopped when this is dropped.
struct Moto {
    process: Child,
    endpoint: String,
}

impl Moto {
    async fn start() -> Option<Self> {
        let server = std::env::var_os("PORTCULLIS_TEST_MOTO").filter(|path| !path.is_empty());
        let Some(server) = server.map(PathBuf::from) else {
            eprintln!("skipped: PORTCULLIS_TEST_MOTO names no moto_server");
            return None;
        };
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(server)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self {
            process,
            endpoint: format!("http://127.0.0.1:{port}"),
        };
        let client = reqwest::Client::new();
        for _ in 0..600 {
            let made = client
                .put(format!("{}/uploads", moto.endpoint))
                .send()
                .await;
            if made.is_ok_and(|response| response.status().is_success()) {
                return Some(moto);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the S3 server does not answer");
    }

    /// The multipart uploads that are neither completed nor aborted.
    async fn unfinished(&self) -> usize {
        let list = reqwest::get(format!("{}/uploads?uploads", self.endpoint)).await;
        let list = list.unwrap().text().await.unwrap();
        assert!(list.contains("ListMultipartUploadsResult"), "{list}");
        list.matches("<Upload>").count()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_real_s3_server() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    let store = AmazonS3Builder::new()
        .with_endpoint(&moto.endpoint)
        .with_allow_http(true)
        .with_bucket_name("uploads")
        .with_region("us-east-1")
        .with_access_key_id("test")
        .with_secret_access_key("test")
        .build()
        .unwrap();
    // S3 takes no smaller part than 5 MiB, except the last.
    every_end(Arc::new(store), 5 * MIB as usize, async || {
        moto.unfinished().await
    })
    .await;
}

/// The example as a process of its own, stopped when this is dropped.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_example_stores_what_it_accepts() {
    use std::io::{BufRead as _, BufReader};

    let test = std::env::current_exe().unwrap();
    let binary = test
        .parent()
        .and_then(FilePath::parent)
        .unwrap()
        .join("examples/upload_to_object_store");
    let dir = tempfile::tempdir().unwrap();
    let process = Command::new(&binary)
        .arg(dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{error}; build it first: cargo build --all-features --examples")
        });
    let mut example = Example(process);
    let mut line = String::new();
    let mut told = BufReader::new(example.0.stdout.take().unwrap());
    told.read_line(&mut line).unwrap();
    let url = line
        .trim()
        .strip_prefix("listening on ")
        .unwrap()
        .to_owned();
    let post = |pictures: &[Vec<u8>]| {
        let request = reqwest::Client::new()
            .post(&url)
            .header("content-type", FORM);
        request.body(body(pictures)).send()
    };
    // Above axum's own limit.
    let picture = picture(3_000_000, "fine");
    let response = post(std::slice::from_ref(&picture)).await.unwrap();
    assert_eq!(response.status(), 200);
    let stored: serde_json::Value = response.json().await.unwrap();
    assert_eq!(stored[0]["name"], "a.png");
    let location = stored[0]["location"].as_str().unwrap();
    assert!(std::fs::read(dir.path().join(location)).unwrap() == picture);

    let behind = [&picture[..], b"PK\x03\x04"].concat();
    let refused = post(&[picture, behind]).await.unwrap();
    assert_eq!(refused.status(), 422);
    settled("only the first", async || {
        std::fs::read_dir(dir.path().join("incoming"))
            .unwrap()
            .count()
            == 1
    })
    .await;
}
