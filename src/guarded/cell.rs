//! What a guarded body and its response future share.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use http::{Response, Version};

use super::watch::BoxWatch;
use crate::{
    body::RejectionBody,
    client::Client,
    context::Context as GateContext,
    head::Head,
    identity::Identity,
    rejection::{Rejection, WireForm},
};

/// The meeting place of one request.
pub(super) struct Cell {
    context: GateContext,
    origin: Origin,
    /// Whether what the reader leaves is read on.
    reads_on: bool,
    /// Whether there is a verdict, readable without the lock.
    refused: AtomicBool,
    /// Whether the body was checked to its end, or its transport failed.
    ended: AtomicBool,
    state: Mutex<State>,
}

/// What is remembered of a request's head for a late refusal.
struct Origin {
    client: Option<Client>,
    identity: Option<Identity>,
    form: WireForm,
    http1: bool,
}

#[derive(Default)]
struct State {
    verdict: Option<Rejection>,
    /// The response is out, or nobody waits for it.
    over: bool,
    /// The future has an answer and waits for the end.
    held: bool,
    /// The watched body, once its reader let go of it.
    leftover: Option<BoxWatch>,
    future: Option<Waker>,
    reader: Option<Waker>,
}

impl Cell {
    pub(super) fn new(context: &GateContext, head: Head<'_>, reads_on: bool) -> Self {
        Self {
            context: context.clone(),
            reads_on,
            origin: Origin {
                client: Client::of(head),
                identity: head.extensions.get::<Identity>().cloned(),
                form: WireForm::of(head),
                http1: head.version < Version::HTTP_2,
            },
            refused: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Sets the verdict, unless there is one, reports it, and wakes the future.
    pub(super) fn refuse(&self, rejection: Rejection) {
        let waker = {
            let mut state = self.lock();
            if state.verdict.is_some() {
                return;
            }
            state.verdict = Some(rejection.clone());
            self.refused.store(true, Ordering::Release);
            state.future.take()
        };
        let Origin {
            client, identity, ..
        } = &self.origin;
        self.context
            .report_of(*client, identity.as_ref(), &rejection);
        wake(waker);
    }

    /// Whether there is a verdict.
    pub(super) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    /// The answer to a request with a verdict.
    pub(super) fn response<B: RejectionBody>(&self) -> Option<Response<B>> {
        let verdict = self.lock().verdict.clone()?;
        Some(self.context.render(verdict, self.origin.form))
    }

    /// What is left of a refused body, where reading it lets an HTTP/1 client see the answer.
    pub(super) fn worth_draining(&self) -> Option<BoxWatch> {
        let mut state = self.lock();
        let leftover = state.leftover.take();
        let stalled = state
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.kind() == crate::RejectionKind::Timeout);
        leftover.filter(|_| self.origin.http1 && !stalled)
    }

    /// The reader of a refused body: pending while the future may still answer, then the verdict.
    pub(super) fn poll_verdict(&self, cx: &mut Context<'_>) -> Poll<Option<Rejection>> {
        let mut state = self.lock();
        if state.over {
            Poll::Ready(state.verdict.clone())
        } else {
            store(&mut state.reader, cx);
            Poll::Pending
        }
    }

    /// The body was checked to its end, or failed.
    pub(super) fn end(&self) {
        let waker = {
            let mut state = self.lock();
            self.ended.store(true, Ordering::Release);
            if state.held {
                state.future.take()
            } else {
                None
            }
        };
        wake(waker);
    }

    /// The handler has answered: the body's end is waited for from now on.
    pub(super) fn hold(&self) {
        self.lock().held = true;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// The reader lets go of a body that has not ended.
    pub(super) fn leave(&self, watch: BoxWatch) {
        let waker = {
            let mut state = self.lock();
            if state.over || !(self.reads_on || state.verdict.is_some()) {
                drop(state);
                return drop(watch);
            }
            state.leftover = Some(watch);
            state.future.take()
        };
        wake(waker);
    }

    pub(super) fn take_leftover(&self) -> Option<BoxWatch> {
        self.lock().leftover.take()
    }

    /// The future waits: it is woken by a verdict, by the body's end and by a leftover.
    pub(super) fn wait(&self, cx: &mut Context<'_>) {
        store(&mut self.lock().future, cx);
    }

    /// The response is out, or the future was dropped.
    pub(super) fn over(&self) {
        let (waker, leftover) = {
            let mut state = self.lock();
            state.over = true;
            (state.reader.take(), mem::take(&mut state.leftover))
        };
        drop(leftover);
        wake(waker);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn store(slot: &mut Option<Waker>, cx: &mut Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
