//! The cases. Each is given a store that holds nothing.

pub(super) mod create;
pub(super) mod handles;
pub(super) mod keep;
pub(super) mod revoke;
pub(super) mod rotate;
pub(super) mod tokens;

use std::{pin::Pin, sync::Arc, task::Poll};

use super::fault::Verdict;

/// Runs `call` as so many tasks at once.
async fn together<S, T, F>(
    store: &Arc<S>,
    tasks: usize,
    call: impl Fn(Arc<S>, usize) -> F,
) -> Verdict<Vec<T>>
where
    T: Send + 'static,
    F: Future<Output = Verdict<T>> + Send + 'static,
{
    let started = Arc::new(tokio::sync::Barrier::new(tasks));
    let tasks: Vec<_> = (0..tasks)
        .map(|task| {
            let (started, call) = (started.clone(), call(store.clone(), task));
            tokio::spawn(async move {
                started.wait().await;
                call.await
            })
        })
        .collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await??);
    }
    Ok(results)
}

/// Polls `future` at most so often and drops it; `true` if it came to its end before.
async fn poll_and_drop<T>(future: impl Future<Output = T>, polls: usize) -> bool {
    let mut future: Pin<Box<_>> = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(false);
        }
        left -= 1;
        future.as_mut().poll(cx).map(|_| true)
    })
    .await
}

/// How many polls a step is dropped after, at most.
const POLLS: usize = 64;
