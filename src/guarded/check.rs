//! What a gate plugs in.

use std::{
    collections::VecDeque,
    error::Error,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::SizeHint;

use crate::rejection::Rejection;

/// A gate's judgement of one request body, frame by frame.
///
/// Bytes go on in the order in which they came. What a check keeps back it returns later, and says
/// in `withheld`, so that the body's length stays exact.
pub(crate) trait BodyCheck: Send + 'static {
    /// Whether the end is judged too; else a body is not asked at each frame whether it was the last.
    const JUDGES_END: bool = true;

    /// Judges the next bytes where that can be told at a glance: `true` lets all of them go on as they
    /// are, `false` asks `data`.
    fn glance(&mut self, data: &Bytes) -> bool {
        let _ = data;
        false
    }

    /// Judges the next bytes. What may go on is pushed to `out`, the last piece returned.
    fn data(&mut self, data: Bytes, out: &mut Released) -> Result<Option<Bytes>, Rejection>;

    /// Judges the whole, once its last byte was seen, and lets go of what was kept back.
    fn end(&mut self, out: &mut Released) -> Result<Option<Bytes>, Rejection> {
        let _ = out;
        Ok(None)
    }

    /// The transport failed before the end: a refusal, or `None` to let the reader see the error.
    fn cut(&mut self) -> Option<Rejection> {
        None
    }

    /// How many bytes are kept back; `None` where what goes on is not what came, so that its length
    /// is not known.
    fn withheld(&self) -> Option<u64> {
        Some(0)
    }

    /// Whether there is work that has to be waited for.
    fn has_work(&self) -> bool {
        false
    }

    /// Drives that work. Nothing more goes on, and nothing more is read, while it is pending.
    fn poll_work(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut Released,
    ) -> Poll<Result<(), Rejection>> {
        let _ = (cx, out);
        Poll::Ready(Ok(()))
    }
}

/// What passed the check and waits for the reader.
#[derive(Debug, Default)]
pub(crate) struct Released {
    pieces: VecDeque<Bytes>,
    bytes: u64,
}

impl Released {
    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.bytes += data.len() as u64;
            self.pieces.push_back(data);
        }
    }

    pub(crate) fn pop(&mut self) -> Option<Bytes> {
        let piece = self.pieces.pop_front()?;
        self.bytes -= piece.len() as u64;
        Some(piece)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The hint of a body whose rest is `inner`, with `withheld` bytes and these pieces before it.
    pub(super) fn before(&self, inner: &SizeHint, withheld: u64) -> SizeHint {
        let ahead = self.bytes.saturating_add(withheld);
        let lower = inner.lower().saturating_add(ahead);
        let mut hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(ahead).max(lower));
        }
        hint
    }
}

/// The error of a guarded body: the inner body's, or the [`Rejection`].
pub(crate) type BoxError = Box<dyn Error + Send + Sync>;
