//! What no request asks for: keys and sessions that are over are cleared away.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use crate::start::App;

/// Clears once at the start, then every hour, a bounded number of rows at a time. A store that does
/// not answer is asked again an hour later.
pub(crate) async fn run(app: Arc<App>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        while let Ok(AT_ONCE) = app.keys.delete_expired(KEEP_KEYS, AT_ONCE as usize).await {}
        while let Ok(AT_ONCE) = app.sessions.delete_expired(AT_ONCE as usize).await {}
    }
}

const EVERY: Duration = Duration::from_secs(3_600);
/// So long the log can still say whose key it is that somebody tries.
const KEEP_KEYS: Duration = Duration::from_secs(30 * 86_400);
const AT_ONCE: u64 = 500;
