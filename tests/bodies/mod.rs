//! Request bodies that do what a test says.
#![allow(dead_code, unreachable_pub)]

#[cfg(feature = "upload")]
pub mod form;

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// One step of a [`Script`].
#[derive(Clone, Debug)]
pub enum Step {
    Data(Bytes),
    /// Not ready that many times; wakes at once. Readers that ask twice in a row (multer does) see
    /// no frame come in between, as with a socket.
    Later(u8),
    /// Never ready again.
    Stall,
    /// The transport fails.
    Fail,
    Trailers(HeaderMap),
}

/// A body that plays its steps.
#[derive(Clone, Debug, Default)]
pub struct Script {
    steps: VecDeque<Step>,
    exact: bool,
}

impl Script {
    /// A body without a length, in frames of `size` bytes, with a wait after each.
    pub fn trickle(bytes: &[u8], size: usize) -> Self {
        let data = bytes.chunks(size).map(Bytes::copy_from_slice);
        Self {
            steps: data
                .flat_map(|data| [Step::Data(data), Step::Later(2)])
                .collect(),
            exact: false,
        }
    }

    /// A body without a length, of these frames.
    pub fn frames(frames: impl IntoIterator<Item = impl Into<Bytes>>) -> Self {
        Self {
            steps: frames
                .into_iter()
                .map(|data| Step::Data(data.into()))
                .collect(),
            exact: false,
        }
    }

    /// Says its exact length.
    pub fn with_length(self) -> Self {
        Self {
            exact: true,
            ..self
        }
    }

    /// Adds a step.
    pub fn then(mut self, step: Step) -> Self {
        self.steps.push_back(step);
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.steps.front().cloned() {
            Some(Step::Stall) => return Poll::Pending,
            Some(Step::Later(times)) => {
                match times {
                    0 | 1 => drop(self.steps.pop_front()),
                    more => self.steps[0] = Step::Later(more - 1),
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            _ => {}
        }
        Poll::Ready(match self.steps.pop_front() {
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail) => {
                self.steps.clear();
                Some(Err(io::Error::other("connection reset")))
            }
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.exact && self.steps.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        if !self.exact {
            return SizeHint::new();
        }
        let data = self.steps.iter().map(|step| match step {
            Step::Data(data) => data.len() as u64,
            _ => 0,
        });
        SizeHint::with_exact(data.sum())
    }
}
