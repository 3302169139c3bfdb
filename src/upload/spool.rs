//! Where a body waits for its verdict: memory first, then an unnamed file.

use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, Read as _, Seek as _, Write as _},
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::{fault::Fault, policy::KIB};
use crate::guarded::Released;

/// Holds whole bodies until their verdict, so that no byte of a refused upload reaches a handler.
///
/// A body is kept in memory up to 256 KiB and then in a temporary file without a name, which is gone
/// with its request whatever happens. All bodies of a `Spool` and its clones share one budget of
/// bytes, in memory and on disk; an upload that does not fit is answered 503 with `Retry-After`.
///
/// Deployment caveat: [`dir`](Self::dir) should not be a file system in memory, and only this user
/// should be able to read it where the platform has no unnamed files.
///
/// ```
/// use portcullis::upload::{MIB, Spool, UploadPolicy};
///
/// let spool = Spool::new(512 * MIB).dir("/var/tmp");
/// let policy = UploadPolicy::images().spool(spool);
/// # drop(policy);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Spool {
    budget: Arc<Budget>,
    memory: u64,
    dir: Option<PathBuf>,
}

#[derive(Debug)]
struct Budget {
    left: AtomicU64,
}

impl Spool {
    /// A spool for at most `budget` bytes of all bodies together.
    pub fn new(budget: u64) -> Self {
        Self {
            budget: Arc::new(Budget {
                left: AtomicU64::new(budget),
            }),
            memory: 256 * KIB,
            dir: None,
        }
    }

    /// Sets how much of one body is kept in memory.
    pub fn memory(self, bytes: u64) -> Self {
        Self {
            memory: bytes,
            ..self
        }
    }

    /// Sets where the files are; the platform's directory for temporary files where it is not set.
    pub fn dir(self, dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: Some(dir.into()),
            ..self
        }
    }

    /// The bytes that are free.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.budget.left.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) -> Spooled {
        Spooled {
            spool: self.clone(),
            reserved: 0,
            memory: VecDeque::new(),
            in_memory: 0,
            file: Store::None,
            on_disk: 0,
            replaying: false,
        }
    }
}

/// One body.
pub(super) struct Spooled {
    spool: Spool,
    /// What is taken of the budget.
    reserved: u64,
    /// What came last, and is not in the file.
    memory: VecDeque<Bytes>,
    in_memory: u64,
    file: Store,
    /// What is in the file, and was not given out.
    on_disk: u64,
    replaying: bool,
}

/// The file, where there is one.
enum Store {
    None,
    Idle(File),
    /// Being written or read; a reading brings bytes.
    Busy(JoinHandle<io::Result<(File, Bytes)>>),
}

impl Spooled {
    /// Takes the next bytes of the body.
    pub(super) fn push(&mut self, data: Bytes) -> Result<(), Fault> {
        let bytes = data.len() as u64;
        if bytes == 0 {
            return Ok(());
        }
        let take = |left: u64| left.checked_sub(bytes);
        let left = &self.spool.budget.left;
        if left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_err()
        {
            return Err(Fault::SpoolFull);
        }
        self.reserved += bytes;
        self.in_memory += bytes;
        self.memory.push_back(data);
        Ok(())
    }

    /// The verdict has come: from now on the body is given out.
    pub(super) fn replay(&mut self) {
        self.replaying = true;
    }

    /// What was not given out.
    pub(super) fn len(&self) -> u64 {
        self.on_disk + self.in_memory
    }

    /// Ready when there is room for more, or something was given out.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Released,
    ) -> Poll<Result<(), Fault>> {
        loop {
            if let Store::Busy(job) = &mut self.file {
                let done = ready!(Pin::new(job).poll(cx));
                let done = done.map_err(io::Error::other).and_then(|done| done);
                let (file, data) = match done {
                    Ok(done) => done,
                    Err(error) => return Poll::Ready(Err(failed(&error))),
                };
                self.file = Store::Idle(file);
                self.on_disk -= data.len() as u64;
                out.push(data);
            }
            if self.replaying {
                if !out.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                if self.on_disk > 0 {
                    self.read();
                    continue;
                }
                self.in_memory = 0;
                self.memory.drain(..).for_each(|data| out.push(data));
                return Poll::Ready(Ok(()));
            }
            if self.in_memory <= self.spool.memory {
                return Poll::Ready(Ok(()));
            }
            self.write();
        }
    }

    /// Moves what is in memory to the end of the file.
    fn write(&mut self) {
        let pieces = std::mem::take(&mut self.memory);
        self.on_disk += std::mem::take(&mut self.in_memory);
        let file = match std::mem::replace(&mut self.file, Store::None) {
            Store::Idle(file) => Some(file),
            Store::None | Store::Busy(_) => None,
        };
        let dir = self.spool.dir.clone();
        self.file = Store::Busy(tokio::task::spawn_blocking(move || {
            let mut file = match (file, dir) {
                (Some(file), _) => file,
                (None, Some(dir)) => tempfile::tempfile_in(dir)?,
                (None, None) => tempfile::tempfile()?,
            };
            for piece in pieces {
                file.write_all(&piece)?;
            }
            Ok((file, Bytes::new()))
        }));
    }

    /// Reads on in the file, from its start the first time.
    fn read(&mut self) {
        let file = std::mem::replace(&mut self.file, Store::None);
        let left = self.on_disk;
        self.file = Store::Busy(tokio::task::spawn_blocking(move || {
            let Store::Idle(mut file) = file else {
                return Err(io::ErrorKind::NotFound.into());
            };
            // The write position is the file's length until the first reading.
            if file.stream_position()? == file.metadata()?.len() {
                file.rewind()?;
            }
            let bytes = left.min(READ);
            let mut data = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            file.read_exact(&mut data)?;
            Ok((file, data.into()))
        }));
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        self.spool
            .budget
            .left
            .fetch_add(self.reserved, Ordering::Relaxed);
    }
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spooled")
            .field("in_memory", &self.in_memory)
            .field("on_disk", &self.on_disk)
            .finish_non_exhaustive()
    }
}

#[cold]
fn failed(error: &io::Error) -> Fault {
    tracing::error!(target: "portcullis::security", error = %error.kind(), "the spool failed");
    Fault::SpoolFailed
}

const READ: u64 = 256 * KIB;
