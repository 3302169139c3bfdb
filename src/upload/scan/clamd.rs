//! ClamAV's daemon.

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use clamav_client::tokio::{Socket, Tcp, scan_stream};
use futures_core::Stream;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, SemaphorePermit},
    time::{Instant, timeout},
};

use super::scanner::{FileStream, ScanError, ScanVerdict, Scanner};
use crate::{guarded::Timer, upload::MIB};

/// A [`Scanner`] that streams files to clamd (`INSTREAM`), over TCP or a Unix socket.
///
/// A clone shares the bound on scans at once. A scan takes its place when its file begins, and may
/// have to wait for a slow client; while others wait for a place, one that has waited longer than
/// [`give_way`](Self::give_way) in all loses its own, and its upload is answered 503. So slow clients
/// do not close the route for others.
///
/// Deployment caveats: clamd answers `OK`, silently, for what is above its own `MaxFileSize`,
/// `MaxScanSize` and `MaxRecursion`. Set `AlertExceedsMax yes` in `clamd.conf` (such a file is then
/// answered 413), and keep [`max_bytes`](Self::max_bytes) at or below `StreamMaxLength` and
/// `MaxFileSize`. The connection is plain text: keep it on the host or in a private network.
///
/// ```
/// use portcullis::upload::{MIB, Spool, UploadPolicy, scan::Clamd};
///
/// let clamd = Clamd::at("127.0.0.1:3310").max_bytes(5 * MIB);
/// let policy = UploadPolicy::images().scan_with(clamd).spool(Spool::new(512 * MIB));
/// # drop(policy);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Clamd {
    address: Address,
    max_bytes: u64,
    connect: Duration,
    give_way: Duration,
    places: Arc<Places>,
}

#[derive(Clone, Debug)]
enum Address {
    Tcp(String),
    Unix(PathBuf),
}

impl Clamd {
    /// The daemon at `address`: a path (it has a `/`) to a Unix socket, or `host:port`.
    pub fn at(address: &str) -> Self {
        Self::new(match address.contains('/') {
            true => Address::Unix(address.into()),
            false => Address::Tcp(address.into()),
        })
    }

    /// The daemon at a TCP address.
    pub fn tcp(address: SocketAddr) -> Self {
        Self::new(Address::Tcp(address.to_string()))
    }

    /// The daemon at a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::new(Address::Unix(path.into()))
    }

    /// The most bytes of a file that may be scanned; 25 MiB where it is not set, as clamd's
    /// `StreamMaxLength`. A larger file is refused.
    pub fn max_bytes(self, max_bytes: u64) -> Self {
        Self { max_bytes, ..self }
    }

    /// The longest wait for a connection; 2 s where it is not set.
    pub fn connect_timeout(self, connect: Duration) -> Self {
        Self { connect, ..self }
    }

    /// The most scans at once; 8 where it is not set. Others wait, within the policy's patience.
    pub fn max_scans(self, scans: usize) -> Self {
        Self {
            places: Arc::new(Places::new(scans)),
            ..self
        }
    }

    /// The longest that a scan may wait for its file in all while others wait for a place; 2 s where
    /// it is not set.
    pub fn give_way(self, give_way: Duration) -> Self {
        Self { give_way, ..self }
    }

    /// Whether the daemon answers.
    ///
    /// # Errors
    ///
    /// When it does not, within the time for a connection.
    pub async fn ping(&self) -> Result<(), ScanError> {
        use clamav_client::tokio::ping;
        let answer = timeout(self.connect, async {
            match &self.address {
                Address::Tcp(host_address) => ping(Tcp { host_address }).await,
                Address::Unix(socket_path) => ping(Socket { socket_path }).await,
            }
        });
        match answer
            .await
            .map_err(|_| ScanError::new("no answer in time"))??
        {
            pong if pong == clamav_client::PONG => Ok(()),
            _ => Err(ScanError::new("an unknown answer to a ping")),
        }
    }

    fn new(address: Address) -> Self {
        Self {
            address,
            max_bytes: 25 * MIB,
            connect: Duration::from_secs(2),
            give_way: Duration::from_secs(2),
            places: Arc::new(Places::new(8)),
        }
    }
}

impl Scanner for Clamd {
    async fn scan(&self, file: FileStream) -> Result<ScanVerdict, ScanError> {
        let _place = self.places.enter().await?;
        let mut too_large = false;
        let input = Counted {
            file,
            left: self.max_bytes,
            too_large: &mut too_large,
            places: &self.places,
            give_way: self.give_way,
            waited: Duration::ZERO,
            waiting_since: None,
            timer: Timer::default(),
        };
        let answer = match &self.address {
            Address::Tcp(address) => {
                let connection = Within {
                    connection: Tcp {
                        host_address: address.as_str(),
                    },
                    limit: self.connect,
                };
                scan_stream(input, connection, None).await
            }
            Address::Unix(path) => {
                let connection = Within {
                    connection: Socket { socket_path: path },
                    limit: self.connect,
                };
                scan_stream(input, connection, None).await
            }
        };
        if too_large {
            return Ok(ScanVerdict::TooLarge);
        }
        verdict(&answer?)
    }
}

/// `stream: OK`, `stream: NAME FOUND`, or `… ERROR`, and a NUL.
fn verdict(answer: &[u8]) -> Result<ScanVerdict, ScanError> {
    let answer = String::from_utf8_lossy(answer);
    let answer = answer.trim_end_matches(['\0', '\n']);
    let told = answer.strip_prefix("stream: ");
    if told == Some("OK") {
        return Ok(ScanVerdict::Clean);
    }
    if let Some(name) = told.and_then(|told| told.strip_suffix(" FOUND")) {
        return Ok(match name.starts_with("Heuristics.Limits.Exceeded") {
            true => ScanVerdict::TooLarge,
            false => ScanVerdict::Infected { name: name.into() },
        });
    }
    if answer.contains("size limit exceeded") {
        return Ok(ScanVerdict::TooLarge);
    }
    Err(ScanError::new(match answer.is_empty() {
        true => "the connection was closed without an answer",
        false => "an unknown answer",
    }))
}

/// The bound on scans at once.
#[derive(Debug)]
struct Places {
    free: Semaphore,
    waiting: AtomicUsize,
}

impl Places {
    fn new(scans: usize) -> Self {
        Self {
            free: Semaphore::new(scans.clamp(1, Semaphore::MAX_PERMITS)),
            waiting: AtomicUsize::new(0),
        }
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, ScanError> {
        /// Counts one who waits, until he has a place or goes away.
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        self.free.acquire().await.map_err(ScanError::new)
    }

    fn are_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

/// The file, up to the bytes that may be scanned, and as long as it may be waited for.
struct Counted<'a> {
    file: FileStream,
    left: u64,
    too_large: &'a mut bool,
    places: &'a Places,
    give_way: Duration,
    /// How long it was waited for, before `waiting_since`.
    waited: Duration,
    waiting_since: Option<Instant>,
    timer: Timer,
}

impl Counted<'_> {
    /// The file has to be waited for: pending while there is time or nobody wants the place.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let since = *self.waiting_since.get_or_insert_with(Instant::now);
        let mut due = since.checked_add(self.give_way.saturating_sub(self.waited));
        while let Some(at) = due {
            ready!(self.timer.poll_until(at, cx));
            if self.places.are_wanted() {
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            due = Instant::now().checked_add(LOOK_AGAIN);
        }
        Poll::Pending
    }
}

impl Stream for Counted<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        let Poll::Ready(chunk) = this.file.poll_chunk(cx) else {
            return this.poll_wait(cx).map(|error| Some(Err(error)));
        };
        if let Some(since) = this.waiting_since.take() {
            this.waited = this.waited.saturating_add(since.elapsed());
        }
        Poll::Ready(
            chunk.map(|chunk| match this.left.checked_sub(chunk.len() as u64) {
                Some(left) => {
                    this.left = left;
                    Ok(chunk)
                }
                None => {
                    *this.too_large = true;
                    Err(io::ErrorKind::FileTooLarge.into())
                }
            }),
        )
    }
}

/// A connection that has to come about in time.
struct Within<C> {
    connection: C,
    limit: Duration,
}

impl<C: clamav_client::tokio::TransportProtocol + Sync> clamav_client::tokio::TransportProtocol
    for Within<C>
{
    type Stream = Answered<C::Stream>;

    fn connect(&self) -> impl Future<Output = io::Result<Self::Stream>> {
        let connection = self.connection.connect();
        async move {
            match timeout(self.limit, connection).await {
                Ok(connected) => Ok(Answered(connected?)),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        }
    }
}

/// A connection whose answer is read although the daemon took no more: that is how it says that a
/// stream is too long.
struct Answered<S>(S);

impl<S: AsyncWrite + Unpin> AsyncWrite for Answered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.0).poll_write(cx, data));
        Poll::Ready(written.or_else(|error| closed(error).map(|()| data.len())))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0)
            .poll_flush(cx)
            .map(|done| done.or_else(closed))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Answered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // A reset behind the answer is its end.
        let read = Pin::new(&mut self.0).poll_read(cx, room);
        read.map(|done| done.or_else(closed))
    }
}

fn closed(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Ok(()),
        _ => Err(error),
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_clamd() {
        let infected = |name: &str| ScanVerdict::Infected { name: name.into() };
        for (answer, expected) in [
            ("stream: OK\0", Some(ScanVerdict::Clean)),
            ("stream: Eicar FOUND\0", Some(infected("Eicar"))),
            ("stream: OK FOUND\0", Some(infected("OK"))),
            (
                "stream: Heuristics.Limits.Exceeded.MaxFileSize FOUND\0",
                Some(ScanVerdict::TooLarge),
            ),
            (
                "INSTREAM size limit exceeded. ERROR\0",
                Some(ScanVerdict::TooLarge),
            ),
            ("stream: Can't allocate memory ERROR\0", None),
            ("UNKNOWN COMMAND\0", None),
            ("OK", None),
            ("", None),
        ] {
            assert_eq!(verdict(answer.as_bytes()).ok(), expected, "{answer}");
        }
    }
}
