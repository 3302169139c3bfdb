//! A connection to Redis or Valkey for what must not be lost there: one for its user, multiplexed,
//! each call with a time and none repeated.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError, RedisResult,
    ScriptInvocation, ServerErrorKind,
    aio::{ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
};
use tokio::time::timeout;

use crate::store_error::{StoreError, StoreErrorKind, redis::failed};

/// One server, or a cluster.
#[derive(Clone)]
pub(crate) enum Link {
    One(Arc<One>),
    Cluster(ClusterConnection),
}

pub(crate) struct One {
    connection: RwLock<ConnectionManager>,
    /// What makes another connection; none where the user gave the one.
    client: Option<Client>,
}

impl One {
    fn connection(&self) -> ConnectionManager {
        let connection = self.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A server that became a replica holds its connections, and the address leads elsewhere now.
    fn leave_a_replica(&self, error: &RedisError) {
        if error.kind() != ErrorKind::Server(ServerErrorKind::ReadOnly) {
            return;
        }
        if let Some(Ok(new)) = self.client.clone().map(manager) {
            let connection = self.connection.write();
            *connection.unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

impl Link {
    /// To the server at `url`, which may be away.
    pub(crate) fn to_one(url: &str) -> RedisResult<Self> {
        let mut address = url.into_connection_info()?;
        if cfg!(target_os = "linux") {
            // Of a server that is cut off, TCP itself would tell after a quarter of an hour.
            let settings = address.tcp_settings().clone();
            address = address.set_tcp_settings(settings.set_user_timeout(CUT_OFF));
        }
        let client = Client::open(address)?;
        let connection = manager(client.clone())?;
        Ok(Self::one(connection, Some(client)))
    }

    /// Over a connection that the user gave.
    pub(crate) fn over(connection: ConnectionManager) -> Self {
        Self::one(connection, None)
    }

    fn one(connection: ConnectionManager, client: Option<Client>) -> Self {
        Self::One(Arc::new(One {
            connection: RwLock::new(connection),
            client,
        }))
    }

    /// To the cluster of which `urls` name some nodes, and one answers.
    pub(crate) async fn to_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> RedisResult<Self> {
        let client = cluster(urls).build()?;
        client.get_async_connection().await.map(Self::Cluster)
    }

    /// The same where all nodes may be away.
    #[cfg(feature = "jwt")]
    pub(crate) fn to_cluster_lazily<'a>(
        urls: impl IntoIterator<Item = &'a str>,
    ) -> RedisResult<Self> {
        let client = cluster(urls).build()?;
        let connection =
            client.get_pending_async_connection_with_config(redis::cluster::ClusterConfig::new());
        Ok(Self::Cluster(connection))
    }

    /// Where nothing has a time-to-live, what stands beside it may: no policy that evicts will do.
    pub(crate) async fn never_evicts(&self) -> Result<(), StoreError> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let told: Vec<String> = match self {
            Self::One(_) => vec![self.ask(&info).await?],
            Self::Cluster(_) => {
                let masters: HashMap<String, String> = self.ask(&info).await?;
                masters.into_values().collect()
            }
        };
        let is_set = |info: &String| {
            info.lines()
                .any(|line| line == "maxmemory_policy:noeviction")
        };
        if told.iter().all(is_set) {
            return Ok(());
        }
        let text = "maxmemory-policy must be noeviction";
        Err(StoreError::new(StoreErrorKind::Misconfigured).with_source(text))
    }

    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        in_time(async {
            match self.clone() {
                Self::One(one) => {
                    let answer = command.query_async(&mut one.connection()).await;
                    answer.inspect_err(|error| one.leave_a_replica(error))
                }
                Self::Cluster(mut cluster) => command.query_async(&mut cluster).await,
            }
        })
        .await
    }

    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        in_time(async {
            match self.clone() {
                Self::One(one) => {
                    let answer = invocation.invoke_async(&mut one.connection()).await;
                    answer.inspect_err(|error| one.leave_a_replica(error))
                }
                Self::Cluster(mut cluster) => invocation.invoke_async(&mut cluster).await,
            }
        })
        .await
    }
}

/// A connection that is opened when it is first used.
fn manager(client: Client) -> RedisResult<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_number_of_retries(0)
        .set_max_delay(RECONNECT);
    ConnectionManager::new_lazy_with_config(client, config)
}

fn cluster<'a>(urls: impl IntoIterator<Item = &'a str>) -> ClusterClientBuilder {
    // The client would repeat a step of which it does not know whether it was done.
    ClusterClient::builder(urls)
        .retries(0)
        .connection_timeout(PATIENCE)
        .response_timeout(PATIENCE)
}

async fn in_time<T>(call: impl Future<Output = RedisResult<T>>) -> Result<T, StoreError> {
    match timeout(PATIENCE, call).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(StoreErrorKind::Timeout.into()),
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
const CUT_OFF: Duration = Duration::from_secs(10);
/// A server that is back is found soon.
const RECONNECT: Duration = Duration::from_millis(500);
