//! The accept loop: what bounds a connection before any layer sees a request.

use std::{
    collections::HashMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{body::Body, response::Response};
use http::Request;
use hyper::{
    body::Incoming,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use portcullis::{
    Peer, TrustedProxies,
    client::{Prefix, with_peer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use tower::Service;

/// Serves `service` until `stop` is ready, then lets requests in progress finish for a while.
pub(crate) async fn serve<S>(
    listener: TcpListener,
    service: S,
    proxies: TrustedProxies,
    stop: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let connections = Connections::new(proxies);
    let graceful = GracefulShutdown::new();
    let http = http();
    let serve = |stream: TcpStream, addr: SocketAddr| {
        let Some(place) = connections.enter(addr.ip()) else {
            return;
        };
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(with_peer(service.clone(), Peer::new(addr)));
        let connection = http.serve_connection_with_upgrades(FirstBytes::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            // A connection that breaks is the client's affair.
            let _ = connection.await;
            drop(place);
        });
    };
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
        };
        match accepted {
            Ok((stream, addr)) => serve(stream, addr),
            Err(error) => {
                // Out of file descriptors, say: waiting lets connections end.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Those whose connection stands already are no less clients: they are served once.
    while let Ok(Ok((stream, addr))) = tokio::time::timeout(Duration::ZERO, listener.accept()).await
    {
        serve(stream, addr);
    }
    drop(listener);
    tokio::time::sleep(FIRST_REQUESTS).await;
    if tokio::time::timeout(LAST_REQUESTS, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not finish in time");
    }
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .max_pending_accept_reset_streams(STREAMS as usize)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(HEAD_TIME);
    http
}

/// Counts connections, so that no client holds all of them.
#[derive(Clone)]
struct Connections {
    proxies: TrustedProxies,
    open: Arc<Mutex<Open>>,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_prefix: HashMap<Prefix, usize>,
}

impl Connections {
    fn new(proxies: TrustedProxies) -> Self {
        Self {
            proxies,
            open: Arc::default(),
        }
    }

    /// A place for one more connection, unless there are too many; a trusted proxy speaks for many
    /// clients and has no bound of its own.
    fn enter(&self, ip: IpAddr) -> Option<Place> {
        let prefix = (!self.proxies.contains(ip)).then(|| Prefix::of_client(ip));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= CONNECTIONS {
            return None;
        }
        if let Some(prefix) = prefix {
            let count = open.by_prefix.entry(prefix).or_default();
            if *count >= CONNECTIONS_PER_PREFIX {
                return None;
            }
            *count += 1;
        }
        open.all += 1;
        Some(Place {
            open: self.open.clone(),
            prefix,
        })
    }
}

struct Place {
    open: Arc<Mutex<Open>>,
    prefix: Option<Prefix>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(prefix) = self.prefix
            && let Some(count) = open.by_prefix.get_mut(&prefix)
        {
            *count -= 1;
            if *count == 0 {
                open.by_prefix.remove(&prefix);
            }
        }
    }
}

/// A stream that gives a client [`HEAD_TIME`] to show which protocol it speaks.
///
/// hyper's own timer starts when the protocol is known; a client that sends half of HTTP/2's
/// preface, or nothing, would hold its place for ever.
struct FirstBytes {
    io: TokioIo<TcpStream>,
    waiting: Option<Waiting>,
}

struct Waiting {
    until: Pin<Box<Sleep>>,
    matched: usize,
}

impl FirstBytes {
    fn new(stream: TcpStream) -> Self {
        Self {
            io: TokioIo::new(stream),
            waiting: Some(Waiting {
                until: Box::pin(tokio::time::sleep(HEAD_TIME)),
                matched: 0,
            }),
        }
    }
}

impl Read for FirstBytes {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(waiting) = &mut this.waiting else {
            return Pin::new(&mut this.io).poll_read(cx, buf);
        };
        let mut first = [0; HTTP2_PREFACE.len()];
        let room = (HTTP2_PREFACE.len() - waiting.matched).min(buf.remaining());
        let mut read = hyper::rt::ReadBuf::new(&mut first[..room]);
        match Pin::new(&mut this.io).poll_read(cx, read.unfilled()) {
            Poll::Ready(result) => {
                result?;
                let bytes = read.filled();
                let known = bytes.is_empty()
                    || !HTTP2_PREFACE[waiting.matched..].starts_with(bytes)
                    || waiting.matched + bytes.len() == HTTP2_PREFACE.len();
                waiting.matched += bytes.len();
                buf.put_slice(bytes);
                if known {
                    this.waiting = None;
                }
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                ready!(waiting.until.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl Write for FirstBytes {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 16 * 1024;
const STREAMS: u32 = 64;
const PING_EVERY: Duration = Duration::from_secs(20);
const CONNECTIONS: usize = 4_096;
const CONNECTIONS_PER_PREFIX: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// In which what a client sends with its connection arrives.
const FIRST_REQUESTS: Duration = Duration::from_millis(300);
const LAST_REQUESTS: Duration = Duration::from_millis(4_200);
