//! What a scanner is, and what it reads.

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;

/// Looks for malware in one file at a time. Called for several files at once.
///
/// The future is dropped when the upload is refused for another reason.
///
/// ```
/// use portcullis::upload::scan::{FileStream, ScanError, ScanVerdict, Scanner};
///
/// /// Finds what the EICAR test file begins with, in one piece.
/// struct Eicar;
///
/// impl Scanner for Eicar {
///     async fn scan(&self, mut file: FileStream) -> Result<ScanVerdict, ScanError> {
///         while let Some(bytes) = file.chunk().await {
///             if bytes.starts_with(b"X5O!P%@AP") {
///                 return Ok(ScanVerdict::Infected { name: "eicar".into() });
///             }
///         }
///         Ok(ScanVerdict::Clean)
///     }
/// }
///
/// # use portcullis::upload::UploadPolicy;
/// let policy = UploadPolicy::images().scan_with(Eicar);
/// # drop(policy);
/// ```
pub trait Scanner: Send + Sync + 'static {
    /// Reads the file to its end, or as far as it has to, and judges it.
    fn scan(&self, file: FileStream)
    -> impl Future<Output = Result<ScanVerdict, ScanError>> + Send;
}

impl<S: Scanner> Scanner for Arc<S> {
    fn scan(
        &self,
        file: FileStream,
    ) -> impl Future<Output = Result<ScanVerdict, ScanError>> + Send {
        (**self).scan(file)
    }
}

/// What a scanner found.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ScanVerdict {
    /// Nothing.
    Clean,
    /// Something, by this name. The name goes to the log, not to the client.
    Infected {
        /// The scanner's name for it.
        name: String,
    },
    /// The scanner is not allowed to look at so much.
    TooLarge,
}

/// A scanner could not judge.
#[derive(Debug)]
pub struct ScanError {
    source: Box<dyn Error + Send + Sync>,
}

impl ScanError {
    /// An error for this reason.
    pub fn new(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
        }
    }
}

impl fmt::Display for ScanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the scanner could not judge")
    }
}

impl Error for ScanError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

impl From<std::io::Error> for ScanError {
    fn from(error: std::io::Error) -> Self {
        Self::new(error)
    }
}

/// A file as it arrives.
#[derive(Debug)]
pub struct FileStream {
    pipe: Pipe,
}

/// A file that is there whole.
impl From<Bytes> for FileStream {
    fn from(bytes: Bytes) -> Self {
        let pipe = Pipe::default();
        pipe.push(bytes);
        pipe.end();
        Self { pipe }
    }
}

impl FileStream {
    /// The next bytes; `None` at the end of the file.
    pub async fn chunk(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// The next bytes; `None` at the end of the file.
    pub fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.pipe.lock();
        if let Some(chunk) = state.chunks.pop_front() {
            let waker = state.gate.take();
            drop(state);
            if let Some(waker) = waker {
                waker.wake();
            }
            return Poll::Ready(Some(chunk));
        }
        if state.ended {
            return Poll::Ready(None);
        }
        state.scanner = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What lies between the gate and a scanner. The gate reads no further while something does.
#[derive(Clone, Debug, Default)]
pub(super) struct Pipe {
    state: Arc<Mutex<PipeState>>,
}

#[derive(Debug, Default)]
struct PipeState {
    chunks: VecDeque<Bytes>,
    ended: bool,
    scanner: Option<Waker>,
    gate: Option<Waker>,
}

impl Pipe {
    pub(super) fn stream(&self) -> FileStream {
        FileStream { pipe: self.clone() }
    }

    pub(super) fn push(&self, data: Bytes) {
        self.change(|state| state.chunks.push_back(data));
    }

    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    /// Whether the scanner has taken everything; else the gate is woken when it takes more.
    pub(super) fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.chunks.is_empty() {
            return Poll::Ready(());
        }
        state.gate = Some(cx.waker().clone());
        Poll::Pending
    }

    fn change(&self, change: impl FnOnce(&mut PipeState)) {
        let waker = {
            let mut state = self.lock();
            change(&mut state);
            state.scanner.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A scanner without its type.
#[derive(Clone)]
pub(in crate::upload) struct AnyScanner(Arc<dyn Erased>);

pub(super) type ScanFuture = Pin<Box<dyn Future<Output = Result<ScanVerdict, ScanError>> + Send>>;

trait Erased: Send + Sync {
    fn begin(self: Arc<Self>, file: FileStream) -> ScanFuture;
}

impl<S: Scanner> Erased for S {
    fn begin(self: Arc<Self>, file: FileStream) -> ScanFuture {
        Box::pin(async move { self.scan(file).await })
    }
}

impl AnyScanner {
    pub(in crate::upload) fn new(scanner: impl Scanner) -> Self {
        Self(Arc::new(scanner))
    }

    pub(super) fn begin(&self, file: FileStream) -> ScanFuture {
        Arc::clone(&self.0).begin(file)
    }
}

impl fmt::Debug for AnyScanner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyScanner").finish_non_exhaustive()
    }
}
