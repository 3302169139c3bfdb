//! What a handler may know of the upload that it reads.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use super::judge::NewFile;
use crate::{head::Head, secret::random};

/// The handler's view of the upload that is being checked, in the request's extensions.
///
/// The body streams, so a handler sees the first file before the last was checked. What it does for
/// good (a row, a rename, the completion of a multipart object) it does after
/// [`accepted`](Self::accepted).
///
/// ```
/// use portcullis::{Head, upload::CheckedUpload};
///
/// async fn handler<B>(request: http::Request<B>) -> Result<(), portcullis::upload::NotAccepted> {
///     let upload = CheckedUpload::of(Head::of(&request));
///     // … read the body, put the files where nobody finds them …
///     if let Some(upload) = upload {
///         for file in upload.accepted().await? {
///             // … and make them known
///             println!("{} of {} bytes", file.media_type(), file.bytes());
///         }
///     }
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct CheckedUpload {
    files: Arc<Mutex<Vec<CheckedFile>>>,
    outcome: watch::Receiver<bool>,
}

impl CheckedUpload {
    /// The upload of this request; `None` where the gate did not engage.
    #[must_use]
    pub fn of(head: Head<'_>) -> Option<Self> {
        head.extensions.get().cloned()
    }

    /// The files so far: each is here once its name and type were accepted.
    #[must_use]
    pub fn files(&self) -> Vec<CheckedFile> {
        lock(&self.files).clone()
    }

    /// Waits for the verdict on the whole body. The body has to be read, or dropped, meanwhile.
    ///
    /// # Errors
    ///
    /// When the upload was refused or ended early. The handler of a refused upload is dropped, so
    /// only a task that outlives the response sees this.
    pub async fn accepted(&self) -> Result<Vec<CheckedFile>, NotAccepted> {
        let mut outcome = self.outcome.clone();
        match outcome.wait_for(|accepted| *accepted).await {
            Ok(_) => Ok(self.files()),
            Err(_) => Err(NotAccepted(())),
        }
    }
}

impl fmt::Debug for CheckedUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckedUpload")
            .field("files", &self.files())
            .field("accepted", &*self.outcome.borrow())
            .finish()
    }
}

/// A file whose name and type were accepted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CheckedFile {
    pub(super) field: String,
    pub(super) name: Option<String>,
    pub(super) storage_name: String,
    pub(super) media_type: Arc<str>,
    pub(super) bytes: u64,
    pub(super) complete: bool,
}

impl CheckedFile {
    /// The name of the form's field; empty for a raw body.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The name that the client gave: no path, and safe to show where it is escaped as any text is.
    /// Not a name to store a file under, which the client must not choose: see
    /// [`storage_name`](Self::storage_name).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A name to store the file under: 128 random bits, and the extension of its media type.
    #[must_use]
    pub fn storage_name(&self) -> &str {
        &self.storage_name
    }

    /// The media type, told by content.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// The bytes so far; all of them once the file is complete.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the file was checked to its end.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }
}

/// The upload was refused, or its body ended early.
#[derive(Clone, Copy, Debug)]
pub struct NotAccepted(());

impl fmt::Display for NotAccepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the upload was not accepted")
    }
}

impl std::error::Error for NotAccepted {}

/// The gate's end. Dropping it before `accept` tells the handler that it was not accepted.
#[derive(Debug)]
pub(super) struct Ledger {
    files: Arc<Mutex<Vec<CheckedFile>>>,
    outcome: watch::Sender<bool>,
}

impl Ledger {
    pub(super) fn new() -> (Self, CheckedUpload) {
        let (sender, receiver) = watch::channel(false);
        let files = Arc::default();
        let upload = CheckedUpload {
            files: Arc::clone(&files),
            outcome: receiver,
        };
        let ledger = Self {
            files,
            outcome: sender,
        };
        (ledger, upload)
    }

    /// A file's name and type were accepted.
    pub(super) fn begin(&self, file: NewFile, media_type: Arc<str>, extension: Option<&str>) {
        let id = u128::from_be_bytes(random());
        let storage_name = match extension {
            Some(extension) => format!("{id:032x}.{extension}"),
            None => format!("{id:032x}"),
        };
        let file = CheckedFile {
            field: file.field,
            name: file.name,
            storage_name,
            media_type,
            bytes: 0,
            complete: false,
        };
        lock(&self.files).push(file);
    }

    /// The file that was begun last has ended.
    pub(super) fn complete(&self, bytes: u64) {
        if let Some(file) = lock(&self.files).last_mut() {
            file.bytes = bytes;
            file.complete = true;
        }
    }

    pub(super) fn accept(&self) {
        self.outcome.send_replace(true);
    }
}

fn lock(files: &Mutex<Vec<CheckedFile>>) -> MutexGuard<'_, Vec<CheckedFile>> {
    files.lock().unwrap_or_else(PoisonError::into_inner)
}
