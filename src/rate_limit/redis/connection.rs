//! The connection: one for a service, multiplexed, with a budget for each call.

use std::{fmt, sync::Arc, time::Duration};

use hkdf::Hkdf;
use redis::{ErrorKind, RedisError, RedisResult};
use sha2::Sha256;
use tokio::time::timeout;

use super::{
    batch::Batches,
    breaker::Breaker,
    denied::Denied,
    script::{self, Answer, Asked, Charge, Names},
};
use crate::{
    context::Context,
    error::ConfigError,
    redis_link::{Connection, Link, Times},
    secret::Secret,
};

/// Redis or Valkey as the keeper of rate limits. A cheap clone; one for a service.
#[derive(Clone)]
pub struct RedisLimits {
    inner: Arc<Inner>,
    budget: Duration,
}

struct Inner {
    link: Link,
    batches: Batches,
    names: Names,
    breaker: Breaker,
    denied: Denied,
}

/// Redis said nothing that can be used.
#[derive(Debug)]
pub(super) struct Away;

impl RedisLimits {
    /// Connects to one server: `redis://`, `rediss://` (TLS) or `redis+unix://`. All instances of a
    /// service give the same `secret`, and share their counts; instances with another one, as
    /// during its rotation, count for themselves.
    ///
    /// A server that is away is no error: it is tried again, and policies go the way of their
    /// [`Outage`](super::Outage) until then.
    ///
    /// # Errors
    /// When the URL cannot be read, or the server refuses its credentials.
    pub async fn connect(url: &str, secret: &Secret) -> Result<Self, ConfigError> {
        Self::over(Link::to_one(url, TIMES), secret).await
    }

    /// Connects to a cluster, of which `urls` name some nodes. Otherwise as
    /// [`connect`](Self::connect).
    ///
    /// # Errors
    /// When a URL cannot be read, or a node refuses its credentials.
    pub async fn connect_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        secret: &Secret,
    ) -> Result<Self, ConfigError> {
        Self::over(Link::to_cluster(urls, TIMES), secret).await
    }

    /// Waits for Redis no longer than `budget` for a request, instead of 100 ms.
    #[must_use]
    pub fn with_budget(self, budget: Duration) -> Self {
        Self { budget, ..self }
    }

    /// Whether Redis failed several times in a row, and the instances' own counts decide.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.inner.breaker.is_open()
    }

    /// Asks Redis for a sign of life, so that [`is_degraded`](Self::is_degraded) is true also where
    /// no request asks: for a probe in the background.
    pub async fn probe(&self, context: &Context) {
        let _ = self.within_budget(context, ping(self.connection())).await;
    }

    async fn over(link: RedisResult<Link>, secret: &Secret) -> Result<Self, ConfigError> {
        let link = link.map_err(unusable)?;
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(b"portcullis rate limits"), secret.expose())
            .expand(b"names of keys", &mut key)
            .expect("HKDF fills 32 bytes");
        match timeout(CONNECT * 2, ping(link.connection())).await {
            Ok(Err(error)) if is_refusal(&error) => return Err(unusable(error)),
            _ => {}
        }
        Ok(Self {
            inner: Arc::new(Inner {
                link,
                batches: Batches::default(),
                names: Names::new("portcullis", &key),
                breaker: Breaker::default(),
                denied: Denied::new(),
            }),
            budget: BUDGET,
        })
    }

    pub(super) fn names(&self) -> &Names {
        &self.inner.names
    }

    pub(super) fn denied(&self) -> &Denied {
        &self.inner.denied
    }

    /// Judges a charge, and makes it unless one of its counts refuses.
    pub(super) async fn charge(
        &self,
        charge: Charge,
        context: &Context,
    ) -> Result<Vec<Answer>, Away> {
        if charge.counts.is_empty() {
            return Ok(Vec::new());
        }
        let link = &self.inner.link;
        if let cluster @ Connection::Cluster(_) = link.connection() {
            return self
                .within_budget(context, charge_slots(cluster, charge))
                .await;
        }
        let answers = self.inner.batches.ask(link, charge, self.budget);
        let answers = async { answers.await.ok_or(Away) };
        self.within_budget(context, answers).await
    }

    /// Gives charges back. One that fails stands.
    pub(super) async fn refund(&self, charges: &[(Asked, u64)], context: &Context) {
        let call = refund(self.connection(), charges);
        let _ = self.within_budget(context, call).await;
    }

    /// Forgets counts; whether Redis did.
    pub(super) async fn forget(&self, asked: &[Asked], context: &Context) -> bool {
        let call = forget(self.connection(), asked);
        self.within_budget(context, call).await.is_ok()
    }

    fn connection(&self) -> Connection {
        self.inner.link.connection()
    }

    async fn within_budget<T, E>(
        &self,
        context: &Context,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Away> {
        let breaker = &self.inner.breaker;
        let leave = breaker.leave(context.monotonic()).ok_or(Away)?;
        match timeout(self.budget, call).await {
            Ok(Ok(answer)) => {
                leave.succeeded();
                Ok(answer)
            }
            Ok(Err(_)) | Err(_) => {
                if leave.failed(context.monotonic()) {
                    self.inner.link.renew();
                }
                Err(Away)
            }
        }
    }
}

impl fmt::Debug for RedisLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLimits")
            .field("budget", &self.budget)
            .field("is_degraded", &self.is_degraded())
            .finish_non_exhaustive()
    }
}

async fn ping(mut connection: Connection) -> RedisResult<()> {
    redis::cmd("PING").query_async(&mut connection).await
}

async fn refund(mut connection: Connection, charges: &[(Asked, u64)]) -> RedisResult<()> {
    match connection {
        Connection::One(_) => script::refund(&mut connection, charges).await,
        Connection::Cluster(_) => refund_slots(&mut connection, charges).await,
    }
}

async fn forget(mut connection: Connection, asked: &[Asked]) -> RedisResult<()> {
    for count in asked {
        let mut command = redis::cmd("DEL");
        command.arg(&count.name);
        let _: u64 = command.query_async(&mut connection).await?;
    }
    Ok(())
}

/// Counts of several slots are all asked first, so that a refusal charges none, and what was charged
/// is given back when one refuses after all.
async fn charge_slots(mut cluster: Connection, charge: Charge) -> RedisResult<Vec<Answer>> {
    let Charge { counts, is_trial } = charge;
    let is_one_slot = counts.iter().all(|count| count.tag == counts[0].tag);
    let is_first_trial = is_trial || !is_one_slot;
    let answers = ask_slots(&mut cluster, &counts, is_first_trial).await?;
    if is_trial || is_one_slot || is_refused(&counts, &answers) {
        return Ok(answers);
    }
    let answers = ask_slots(&mut cluster, &counts, false).await?;
    if is_refused(&counts, &answers) {
        let charged: Vec<_> = counts
            .into_iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.stamp > 0)
            .map(|(count, answer)| (count, answer.stamp))
            .collect();
        refund_slots(&mut cluster, &charged).await?;
    }
    Ok(answers)
}

async fn ask_slots(
    cluster: &mut Connection,
    counts: &[Asked],
    is_trial: bool,
) -> RedisResult<Vec<Answer>> {
    let mut answers = Vec::with_capacity(counts.len());
    for slot in counts.chunk_by(|one, next| one.tag == next.tag) {
        let charge = Charge {
            counts: slot.to_vec(),
            is_trial,
        };
        answers.extend(
            script::charge(cluster, &[charge])
                .await?
                .into_iter()
                .flatten(),
        );
    }
    Ok(answers)
}

async fn refund_slots(cluster: &mut Connection, charges: &[(Asked, u64)]) -> RedisResult<()> {
    for slot in charges.chunk_by(|(one, _), (next, _)| one.tag == next.tag) {
        script::refund(cluster, slot).await?;
    }
    Ok(())
}

fn is_refused(asked: &[Asked], answers: &[Answer]) -> bool {
    let mut both = asked.iter().zip(answers);
    both.any(|(count, answer)| count.may_refuse && !answer.admits)
}

fn unusable(error: RedisError) -> ConfigError {
    // Drivers may repeat the URL, which holds a password.
    ConfigError::new("REDIS_URL", format!("cannot be used: {:?}", error.kind()))
}

fn is_refusal(error: &RedisError) -> bool {
    let refused = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig
    );
    refused || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
}

const BUDGET: Duration = Duration::from_millis(100);
const CONNECT: Duration = Duration::from_secs(1);
const TIMES: Times = Times {
    connect: CONNECT,
    answer: None,
    reconnect: Duration::from_millis(200),
};
