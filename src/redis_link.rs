//! A connection to Redis or Valkey: one for its user, multiplexed, no call of it repeated.

#[cfg(feature = "refresh-token")]
use std::collections::HashMap;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{
    Client, Cmd, IntoConnectionInfo as _, Pipeline, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
    cluster::{ClusterClient, ClusterConfig},
    cluster_async::ClusterConnection,
};
#[cfg(feature = "refresh-token")]
use redis::{FromRedisValue, ScriptInvocation};
#[cfg(feature = "refresh-token")]
use tokio::time::timeout;

#[cfg(feature = "refresh-token")]
use crate::store_error::{
    StoreError, StoreErrorKind,
    redis::{READ_ONLY, code, failed},
};

/// One server, or a cluster. A cheap clone.
#[derive(Clone)]
pub(crate) struct Link {
    inner: Arc<Inner>,
}

struct Inner {
    /// What makes another connection; none where the user gave the one.
    server: Option<(Server, Times)>,
    connection: RwLock<Connection>,
}

enum Server {
    One(Box<Client>),
    Cluster(Box<ClusterClient>),
}

#[derive(Clone)]
pub(crate) enum Connection {
    One(ConnectionManager),
    Cluster(ClusterConnection),
}

#[derive(Clone, Copy)]
pub(crate) struct Times {
    pub(crate) connect: Duration,
    /// `None` where whoever calls bounds the call.
    pub(crate) answer: Option<Duration>,
    /// The longest pause before a server that is away is tried again.
    pub(crate) reconnect: Duration,
}

impl Link {
    /// To the server at `url`, which may be away.
    pub(crate) fn to_one(url: &str, times: Times) -> RedisResult<Self> {
        let mut address = url.into_connection_info()?;
        if cfg!(target_os = "linux") {
            // Of a server that is cut off, TCP itself would tell after a quarter of an hour.
            let settings = address.tcp_settings().clone();
            address = address.set_tcp_settings(settings.set_user_timeout(CUT_OFF));
        }
        Self::to(Server::One(Box::new(Client::open(address)?)), times)
    }

    /// To the cluster of which `urls` name some nodes, all of which may be away.
    pub(crate) fn to_cluster<'a>(
        urls: impl IntoIterator<Item = &'a str>,
        times: Times,
    ) -> RedisResult<Self> {
        // The client would repeat a step of which it does not know whether it was done.
        let mut client = ClusterClient::builder(urls)
            .retries(0)
            .connection_timeout(times.connect);
        if let Some(answer) = times.answer {
            client = client.response_timeout(answer);
        }
        Self::to(Server::Cluster(Box::new(client.build()?)), times)
    }

    /// Over a connection that the user gave.
    #[cfg(feature = "refresh-token")]
    pub(crate) fn over(connection: ConnectionManager) -> Self {
        Self::new(None, Connection::One(connection))
    }

    fn to(server: Server, times: Times) -> RedisResult<Self> {
        let connection = server.connection(times)?;
        Ok(Self::new(Some((server, times)), connection))
    }

    fn new(server: Option<(Server, Times)>, connection: Connection) -> Self {
        let connection = RwLock::new(connection);
        Self {
            inner: Arc::new(Inner { server, connection }),
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        let connection = self.inner.connection.read();
        connection.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A connection may stand and still be of no use: to a server that became a replica, or through
    /// a proxy whose server is gone.
    pub(crate) fn renew(&self) {
        let Some((server, times)) = &self.inner.server else {
            return;
        };
        if let Ok(new) = server.connection(*times) {
            let connection = self.inner.connection.write();
            *connection.unwrap_or_else(PoisonError::into_inner) = new;
        }
    }
}

/// For what must not be lost there.
#[cfg(feature = "refresh-token")]
impl Link {
    /// Where nothing has a time-to-live, what stands beside it may: no policy that evicts will do.
    pub(crate) async fn never_evicts(&self) -> Result<(), StoreError> {
        let mut info = redis::cmd("INFO");
        info.arg("memory");
        let told: Vec<String> = match self.connection() {
            Connection::One(_) => vec![self.ask(&info).await?],
            Connection::Cluster(_) => {
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
        let mut connection = self.connection();
        self.in_time(command.query_async(&mut connection)).await
    }

    pub(crate) async fn run<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        self.in_time(invocation.invoke_async(&mut connection)).await
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, StoreError> {
        let Ok(answer) = timeout(PATIENCE, call).await else {
            return Err(StoreErrorKind::Timeout.into());
        };
        answer.map_err(|error| {
            // It holds its connections when it becomes a replica, and the address leads elsewhere.
            if code(&error) == Some(READ_ONLY) {
                self.renew();
            }
            failed(error)
        })
    }
}

#[cfg(feature = "refresh-token")]
impl Times {
    pub(crate) const PATIENT: Self = Self {
        connect: PATIENCE,
        answer: Some(PATIENCE),
        reconnect: Duration::from_millis(500),
    };
}

impl Server {
    /// A connection that is opened when it is first used.
    fn connection(&self, times: Times) -> RedisResult<Connection> {
        match self {
            Self::One(client) => {
                let config = ConnectionManagerConfig::new()
                    .set_connection_timeout(Some(times.connect))
                    .set_response_timeout(times.answer)
                    .set_number_of_retries(0)
                    .set_max_delay(times.reconnect);
                let client = Client::clone(client);
                ConnectionManager::new_lazy_with_config(client, config).map(Connection::One)
            }
            Self::Cluster(client) => {
                let config = ClusterConfig::new();
                let connection = client.get_pending_async_connection_with_config(config);
                Ok(Connection::Cluster(connection))
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(command),
            Self::Cluster(cluster) => cluster.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Cluster(cluster) => cluster.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Cluster(cluster) => cluster.get_db(),
        }
    }
}

#[cfg(feature = "refresh-token")]
const PATIENCE: Duration = Duration::from_secs(2);
const CUT_OFF: Duration = Duration::from_secs(10);
