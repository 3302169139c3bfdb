//! What a gate plugs in.

use std::{collections::VecDeque, error::Error};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use crate::rejection::Rejection;

/// A gate's judgement of one request body, frame by frame.
///
/// Bytes go on in the order in which they came. What a check keeps back it returns later, and says
/// in `withheld`, so that the body's length stays exact.
pub(crate) trait BodyCheck: Send + 'static {
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

    /// How many bytes are kept back.
    fn withheld(&self) -> u64 {
        0
    }
}

/// Frames that passed the check and wait for the reader.
#[derive(Debug, Default)]
pub(crate) struct Released {
    frames: VecDeque<Frame<Bytes>>,
    bytes: u64,
}

impl Released {
    pub(crate) fn push(&mut self, data: Bytes) {
        if !data.is_empty() {
            self.bytes += data.len() as u64;
            self.frames.push_back(Frame::data(data));
        }
    }

    pub(super) fn push_frame(&mut self, frame: Frame<Bytes>) {
        self.frames.push_back(frame);
    }

    pub(super) fn pop(&mut self) -> Option<Frame<Bytes>> {
        let frame = self.frames.pop_front()?;
        self.bytes -= frame.data_ref().map_or(0, |data| data.len() as u64);
        Some(frame)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The hint of a body whose rest is `inner`, with `withheld` bytes and these frames before it.
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
