//! Checked files into an object store: nobody finds an object before the whole upload was accepted.
//!
//! An [`ObjectSink`] is made once, of any store of the `object_store` crate. A handler begins a
//! [`HandOff`] for its request, writes each file to it as it reads it, and commits. Bytes go to the
//! store while they stream, as parts of multipart uploads, which no reader of the store sees; the
//! commit waits for the verdict on the whole request, of the scanner too, and completes them. What
//! is not committed is aborted: where the upload is refused, the client goes away, the handler fails
//! or is dropped, or the store fails. Files that together are smaller than one part wait in memory
//! and are put when they are committed.
//!
//! Memory is bounded for each request, whatever the size of its files: one part that is filled and
//! as many as are in flight.
//!
//! ```
//! use std::sync::Arc;
//!
//! use axum::{Extension, extract::Multipart};
//! use object_store::memory::InMemory;
//! use portcullis::{
//!     Rejection, RejectionKind,
//!     upload::{CheckedUpload, object_store::ObjectSink},
//! };
//!
//! async fn upload(
//!     Extension(sink): Extension<ObjectSink>,
//!     Extension(upload): Extension<CheckedUpload>,
//!     mut form: Multipart,
//! ) -> Result<String, Rejection> {
//!     let unreadable = |_| Rejection::new(RejectionKind::BadRequest, "upload", "unreadable");
//!     let mut hand_off = sink.begin(upload);
//!     while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
//!         // A field, or a file input that was left empty.
//!         if field.file_name().is_none_or(str::is_empty) {
//!             continue;
//!         }
//!         hand_off.begin_file().await?;
//!         while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
//!             hand_off.write(chunk).await?;
//!         }
//!     }
//!     let stored = hand_off.commit().await?;
//!     Ok(stored.iter().map(|object| format!("{}\n", object.location())).collect())
//! }
//!
//! let sink = ObjectSink::new(Arc::new(InMemory::new())).prefix("incoming")?;
//! # let _ = (sink, upload);
//! # Ok::<_, portcullis::ConfigError>(())
//! ```
//!
//! # Deployment caveats
//!
//! - A process that is killed aborts nothing: give the bucket a lifecycle rule that ends multipart
//!   uploads which stay incomplete.
//! - Several files are completed one after the other. When one fails, those before it are deleted
//!   again; a reader may have seen them.
//! - How long the store is tried is the store's own setting (`RetryConfig`); the deadline of the
//!   upload's policy ends the request, and the abort goes on behind it.

use std::{error::Error, fmt, mem, sync::Arc};

use ::object_store::{
    Attribute, Attributes, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload,
    path::Path,
};
use bytes::Bytes;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, JoinSet},
};

use super::{CheckedFile, CheckedUpload, MIB, fault::GATE};
use crate::{
    error::ConfigError,
    rejection::{Rejection, RejectionKind},
};

type StoreError = ::object_store::Error;

/// Where checked files are stored. A clone shares the store.
#[derive(Clone, Debug)]
#[must_use]
pub struct ObjectSink {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    part_bytes: usize,
    in_flight: usize,
    typed: bool,
}

impl ObjectSink {
    /// A sink of this store.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            prefix: Path::default(),
            part_bytes: 5 * MIB as usize,
            in_flight: 2,
            typed: false,
        }
    }

    /// Puts the objects below this path.
    ///
    /// # Errors
    ///
    /// When it is no path of an object.
    pub fn prefix(self, prefix: &str) -> Result<Self, ConfigError> {
        let prefix = Path::parse(prefix)
            .map_err(|_| ConfigError::new("object prefix", "the path of an object"))?;
        Ok(Self { prefix, ..self })
    }

    /// Sets the size of a part; 5 MiB where it is not set, the least that S3 takes.
    pub fn part_bytes(self, bytes: usize) -> Self {
        Self {
            part_bytes: bytes.max(1),
            ..self
        }
    }

    /// Sets how many parts of a request may be on their way to the store; 2 where it is not set. The
    /// client is read no further while more would be.
    pub fn in_flight(self, parts: usize) -> Self {
        Self {
            in_flight: parts.max(1),
            ..self
        }
    }

    /// Stores the media type with each object, as its `Content-Type`. Local file systems cannot.
    pub fn typed(self) -> Self {
        Self {
            typed: true,
            ..self
        }
    }

    /// Begins to store the files of one request. Needs a Tokio runtime.
    pub fn begin(&self, upload: CheckedUpload) -> HandOff {
        let (orders, inbox) = mpsc::channel(1);
        let keeper = Keeper {
            sink: self.clone(),
            objects: Vec::new(),
        };
        HandOff {
            upload,
            prefix: self.prefix.clone(),
            orders,
            task: tokio::spawn(keeper.run(inbox)),
            failed: None,
            seen: 0,
            begun: Vec::new(),
        }
    }
}

/// The files of one request on their way to the store. Dropping it aborts all of them.
#[derive(Debug)]
#[must_use]
pub struct HandOff {
    upload: CheckedUpload,
    prefix: Path,
    orders: mpsc::Sender<Order>,
    /// Lives on when this is dropped, to abort what was begun.
    task: JoinHandle<Result<(), StoreError>>,
    failed: Option<Arc<StoreError>>,
    /// How many files of the request were begun or skipped.
    seen: usize,
    begun: Vec<Begun>,
}

#[derive(Debug)]
struct Begun {
    /// Which file of the request it is.
    index: usize,
    location: Path,
    written: u64,
}

impl HandOff {
    /// Begins the next file of the request. What is written from now on belongs to it.
    ///
    /// # Errors
    ///
    /// When the request has no further file, or the store failed.
    pub async fn begin_file(&mut self) -> Result<(), HandOffError> {
        let files = self.upload.files();
        let file = files.get(self.seen).ok_or(HandOffError::Mismatch)?;
        let location = self.prefix.clone().join(file.storage_name());
        self.begun.push(Begun {
            index: self.seen,
            location: location.clone(),
            written: 0,
        });
        self.seen += 1;
        let media_type = file.media_type().to_owned();
        self.order(Order::Begin(location, media_type)).await
    }

    /// Passes over the next file of the request: it is not stored.
    pub fn skip_file(&mut self) {
        self.seen += 1;
    }

    /// The next bytes of the file that was begun last. Waits while enough are on their way.
    ///
    /// # Errors
    ///
    /// When no file was begun, or the store failed.
    pub async fn write(&mut self, data: Bytes) -> Result<(), HandOffError> {
        let begun = self.begun.last_mut().ok_or(HandOffError::Mismatch)?;
        begun.written += data.len() as u64;
        self.order(Order::Data(data)).await
    }

    /// Waits until the whole upload was accepted, then makes the objects visible.
    ///
    /// # Errors
    ///
    /// When the upload was not accepted, when what was written of a file is not what was checked, or
    /// when the store failed. Nothing is left in the store then.
    pub async fn commit(mut self) -> Result<Vec<StoredObject>, HandOffError> {
        let files = self.upload.accepted().await;
        let files = files.map_err(|_| HandOffError::NotAccepted)?;
        let whole = self.begun.iter().all(|begun| {
            let file = files.get(begun.index);
            file.is_some_and(|file| file.is_complete() && file.bytes() == begun.written)
        });
        if !whole {
            return Err(HandOffError::Mismatch);
        }
        let (tell, told) = oneshot::channel();
        self.order(Order::Commit(tell)).await?;
        if told.await.is_err() {
            return Err(self.failure().await);
        }
        let stored = self.begun.iter().map(|begun| StoredObject {
            file: files[begun.index].clone(),
            location: begun.location.to_string(),
        });
        Ok(stored.collect())
    }

    async fn order(&mut self, order: Order) -> Result<(), HandOffError> {
        match self.orders.send(order).await {
            Ok(()) => Ok(()),
            Err(_) => Err(self.failure().await),
        }
    }

    /// Why the task has ended.
    async fn failure(&mut self) -> HandOffError {
        let failed = match self.failed.take() {
            Some(failed) => failed,
            None => match (&mut self.task).await {
                Ok(Ok(())) => return HandOffError::NotAccepted,
                Ok(Err(error)) => Arc::new(error),
                Err(source) => Arc::new(StoreError::JoinError { source }),
            },
        };
        self.failed = Some(Arc::clone(&failed));
        HandOffError::Store(failed)
    }
}

/// A file that is in the store.
#[derive(Clone, Debug)]
pub struct StoredObject {
    file: CheckedFile,
    location: String,
}

impl StoredObject {
    /// What was checked.
    #[must_use]
    pub fn file(&self) -> &CheckedFile {
        &self.file
    }

    /// Where it is in the store: the sink's prefix and the file's
    /// [`storage_name`](CheckedFile::storage_name).
    #[must_use]
    pub fn location(&self) -> &str {
        &self.location
    }
}

/// Files were not stored. As a [`Rejection`] it is 400 for an upload that was not accepted, 503 for
/// a store that failed, and 500 for a handler that wrote something else than it read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum HandOffError {
    /// The upload was refused, or ended early.
    NotAccepted,
    /// The handler did not write the files as it read them.
    Mismatch,
    /// The store failed.
    Store(Arc<StoreError>),
}

impl fmt::Display for HandOffError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAccepted => "the upload was not accepted",
            Self::Mismatch => "what was written is not what was checked",
            Self::Store(_) => "the object store failed",
        })
    }
}

impl Error for HandOffError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::NotAccepted | Self::Mismatch => None,
            Self::Store(error) => Some(error),
        }
    }
}

impl From<HandOffError> for Rejection {
    fn from(error: HandOffError) -> Self {
        let (kind, reason) = match error {
            HandOffError::NotAccepted => (RejectionKind::BadRequest, "not_accepted"),
            HandOffError::Mismatch => (RejectionKind::Internal, "hand_off_mismatch"),
            HandOffError::Store(_) => (RejectionKind::Unavailable, "object_store_failed"),
        };
        Self::new(kind, GATE, reason)
    }
}

#[cfg(feature = "axum")]
impl axum::response::IntoResponse for HandOffError {
    fn into_response(self) -> axum::response::Response {
        Rejection::from(self).into_response()
    }
}

/// What a hand-off tells its task.
#[derive(Debug)]
enum Order {
    Begin(Path, String),
    Data(Bytes),
    Commit(oneshot::Sender<()>),
}

/// The task behind a hand-off.
struct Keeper {
    sink: ObjectSink,
    objects: Vec<Object>,
}

struct Object {
    location: Path,
    attributes: Attributes,
    /// What belongs to no part yet.
    pieces: Vec<Bytes>,
    bytes: usize,
    upload: Option<Box<dyn MultipartUpload>>,
    parts: JoinSet<Result<(), StoreError>>,
    visible: bool,
}

impl Keeper {
    /// Follows orders until the commit; without one, undoes what was done.
    async fn run(mut self, mut inbox: mpsc::Receiver<Order>) -> Result<(), StoreError> {
        let mut done = Ok(());
        while let Some(order) = inbox.recv().await {
            done = match order {
                Order::Begin(location, media_type) => self.begin(location, media_type).await,
                Order::Data(data) => self.write(data).await,
                Order::Commit(tell) => {
                    done = self.complete().await;
                    // Whoever is not told cannot tell others where the objects are.
                    if done.is_ok() && tell.send(()).is_ok() {
                        return done;
                    }
                    break;
                }
            };
            if done.is_err() {
                break;
            }
        }
        if let Err(error) = &done {
            tracing::error!(target: TARGET, %error, "an object store failed");
        }
        self.undo().await;
        done
    }

    async fn begin(&mut self, location: Path, media_type: String) -> Result<(), StoreError> {
        // Nothing more comes of the one before.
        if let Some(before) = self.objects.last_mut()
            && before.upload.is_some()
        {
            before.flush(self.sink.in_flight).await?;
        }
        let mut attributes = Attributes::new();
        if self.sink.typed {
            attributes.insert(Attribute::ContentType, media_type.into());
        }
        self.objects.push(Object {
            location,
            attributes,
            pieces: Vec::new(),
            bytes: 0,
            upload: None,
            parts: JoinSet::new(),
            visible: false,
        });
        Ok(())
    }

    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let ObjectSink {
            store,
            part_bytes,
            in_flight,
            ..
        } = &self.sink;
        let Some((current, before)) = self.objects.split_last_mut() else {
            return Ok(());
        };
        if current.upload.is_some() {
            return current.fill(data, *part_bytes, *in_flight).await;
        }
        current.push(data);
        let waiting = before.iter().filter(|object| object.upload.is_none());
        let waiting: usize = waiting.map(|object| object.bytes).sum();
        if waiting + current.bytes <= *part_bytes {
            return Ok(());
        }
        for object in before.iter_mut().filter(|object| object.upload.is_none()) {
            object.start(&**store).await?;
            object.flush(*in_flight).await?;
        }
        current.start(&**store).await?;
        current.bytes = 0;
        for piece in mem::take(&mut current.pieces) {
            current.fill(piece, *part_bytes, *in_flight).await?;
        }
        Ok(())
    }

    async fn complete(&mut self) -> Result<(), StoreError> {
        let ObjectSink {
            store, in_flight, ..
        } = &self.sink;
        for object in &mut self.objects {
            if object.upload.is_some() {
                object.flush(*in_flight).await?;
                object.wait(1).await?;
            }
        }
        for object in &mut self.objects {
            // From here on it may be visible, whatever the store says.
            object.visible = true;
            match &mut object.upload {
                Some(upload) => {
                    upload.complete().await?;
                }
                None => {
                    let payload = PutPayload::from_iter(mem::take(&mut object.pieces));
                    let options = object.attributes.clone().into();
                    store.put_opts(&object.location, payload, options).await?;
                }
            }
        }
        Ok(())
    }

    async fn undo(&mut self) {
        for object in &mut self.objects {
            object.parts.shutdown().await;
            if let Some(upload) = &mut object.upload
                && let Err(error) = upload.abort().await
                && !object.visible
            {
                tracing::error!(target: TARGET, %error, "a multipart upload was not aborted");
            }
            if !object.visible {
                continue;
            }
            match self.sink.store.delete(&object.location).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    tracing::error!(target: TARGET, %error, "an object was not deleted");
                }
            }
        }
    }
}

impl Object {
    fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.bytes += data.len();
            self.pieces.push(data);
        }
    }

    /// Adds bytes, and sends every part that is full.
    async fn fill(&mut self, mut data: Bytes, part: usize, most: usize) -> Result<(), StoreError> {
        while self.bytes + data.len() >= part {
            self.push(data.split_to(part - self.bytes));
            self.flush(most).await?;
        }
        self.push(data);
        Ok(())
    }

    async fn start(&mut self, store: &dyn ObjectStore) -> Result<(), StoreError> {
        let options = self.attributes.clone().into();
        self.upload = Some(store.put_multipart_opts(&self.location, options).await?);
        Ok(())
    }

    /// Sends what is there as a part, once fewer than `most` are on their way.
    async fn flush(&mut self, most: usize) -> Result<(), StoreError> {
        if self.bytes == 0 {
            return Ok(());
        }
        self.wait(most).await?;
        if let Some(upload) = &mut self.upload {
            let payload = PutPayload::from_iter(mem::take(&mut self.pieces));
            self.bytes = 0;
            self.parts.spawn(upload.put_part(payload));
        }
        Ok(())
    }

    /// Waits until fewer than `most` parts are on their way.
    async fn wait(&mut self, most: usize) -> Result<(), StoreError> {
        while self.parts.len() >= most {
            match self.parts.join_next().await {
                Some(done) => done.map_err(|source| StoreError::JoinError { source })??,
                None => break,
            }
        }
        Ok(())
    }
}

const TARGET: &str = "portcullis::security";
