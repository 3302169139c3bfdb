//! Joins the charges of requests that run at the same time into one call: most of what a call costs
//! Redis and the client does not depend on how many counts it judges.
//!
//! Nobody waits for company: a charge goes out at once unless [`AT_ONCE`] calls are under way, and
//! then with whatever else waits as soon as one of them has returned. The request that leads a call
//! drives it, and then hands the lead to one that waits.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::oneshot::{self, Receiver, Sender},
    time::timeout,
};

use super::script::{self, Answer, Charge};
use crate::redis_link::Link;

/// The charges that wait, and the calls under way.
#[derive(Clone, Default)]
pub(super) struct Batches {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    under_way: usize,
}

struct Waiting {
    asked: Asked,
    tell: Sender<Told>,
}

struct Asked {
    charge: Charge,
    budget: Duration,
}

enum Told {
    Answer(Vec<Answer>),
    Lead(Lead),
}

impl Batches {
    /// Asks in a call that others may share; nothing when that fails.
    pub(super) async fn ask(
        &self,
        link: &Link,
        charge: Charge,
        budget: Duration,
    ) -> Option<Vec<Answer>> {
        let lead = match self.join(Asked { charge, budget }) {
            Ok(lead) => lead,
            Err(told) => match told.await.ok()? {
                Told::Answer(answer) => return Some(answer),
                Told::Lead(lead) => lead,
            },
        };
        Driven(Some(Box::pin(lead.call(link.clone())))).await
    }

    /// The lead of a call, or the end at which to wait.
    fn join(&self, asked: Asked) -> Result<Lead, Receiver<Told>> {
        let mut state = self.state();
        if state.under_way < AT_ONCE {
            state.under_way += 1;
            return Ok(Lead::new(self.clone(), asked));
        }
        let (tell, told) = oneshot::channel();
        state.waiting.push_back(Waiting { asked, tell });
        Err(told)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the calls under way. Dropped, it goes to one that waits.
struct Lead {
    /// None once it has gone.
    batches: Option<Batches>,
    own: Option<Asked>,
}

impl Lead {
    fn new(batches: Batches, own: Asked) -> Self {
        Self {
            batches: Some(batches),
            own: Some(own),
        }
    }

    async fn call(mut self, link: Link) -> Option<Vec<Answer>> {
        let (charges, tellers, budget) = self.batch();
        let mut connection = link.connection();
        let call = script::charge(&mut connection, &charges);
        // Whose teller is dropped has been told that the call failed.
        let mut answers = timeout(budget, call).await.ok()?.ok()?.into_iter();
        let own = answers.next();
        for (tell, answer) in tellers.into_iter().zip(answers) {
            let _ = tell.send(Told::Answer(answer));
        }
        own
    }

    /// What goes out, the lead's own first, and for how long: without what nobody waits for any more.
    fn batch(&mut self) -> (Vec<Charge>, Vec<Sender<Told>>, Duration) {
        let (mut charges, mut tellers, mut budget) = (Vec::new(), Vec::new(), Duration::ZERO);
        let mut add = |asked: Asked| {
            charges.push(asked.charge);
            budget = budget.max(asked.budget);
        };
        self.own.take().into_iter().for_each(&mut add);
        if let Some(batches) = &self.batches {
            let mut state = batches.state();
            while tellers.len() + 1 < JOINED
                && let Some(Waiting { asked, tell }) = state.waiting.pop_front()
            {
                if !tell.is_closed() {
                    add(asked);
                    tellers.push(tell);
                }
            }
        }
        (charges, tellers, budget)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        while let Some(batches) = self.batches.take() {
            let next = {
                let mut state = batches.state();
                let next = state.waiting.pop_front();
                state.under_way -= usize::from(next.is_none());
                next
            };
            let Some(Waiting { asked, tell }) = next else {
                return;
            };
            if let Err(Told::Lead(mut unheard)) = tell.send(Told::Lead(Self::new(batches, asked))) {
                self.batches = unheard.batches.take();
            }
        }
    }
}

/// A call whose leader may go away: it is driven to its end, since others wait for it too.
struct Driven<F: Future + Send + 'static>(Option<Pin<Box<F>>>)
where
    F::Output: Send;

impl<F: Future + Send + 'static> Future for Driven<F>
where
    F::Output: Send,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Some(call) = &mut self.0 else {
            return Poll::Pending;
        };
        let polled = call.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled
    }
}

impl<F: Future + Send + 'static> Drop for Driven<F>
where
    F::Output: Send,
{
    fn drop(&mut self) {
        if let Some(call) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(call);
        }
    }
}

/// Calls under way.
const AT_ONCE: usize = 4;
/// Charges of one call: it holds up Redis for a small part of a millisecond.
const JOINED: usize = 32;
