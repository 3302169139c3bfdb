//! Users who refresh all the time, whatever becomes of the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use portcullis::{
    Rejection,
    refresh_token::{Device, RefreshError, RefreshTokens},
};
use tokio::task::JoinHandle;

pub struct Load {
    stop: Arc<AtomicBool>,
    users: Vec<JoinHandle<(u32, u32)>>,
}

impl Load {
    /// Logs the users in; each then presents his latest token again and again.
    pub async fn start(tokens: &RefreshTokens, users: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut running = Vec::new();
        for user in 0..users {
            let (tokens, stop) = (tokens.clone(), stop.clone());
            let login = tokens.begin(&format!("user-{user}")).await.unwrap();
            let session = tokens.start(login, Device::new()).await.unwrap();
            running.push(tokio::spawn(async move {
                let mut token = session.token.expose().to_owned();
                let (mut refreshed, mut refused) = (0, 0);
                while !stop.load(Ordering::Relaxed) {
                    let outages;
                    (token, outages) = until_refreshed(&tokens, &token).await;
                    refreshed += 1;
                    refused += outages;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                (refreshed, refused)
            }));
        }
        let users = running;
        Self { stop, users }
    }

    /// Ends it: how often all of them were refreshed and refused. Each of them at least once.
    pub async fn end(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = (0, 0);
        for user in self.users {
            let (refreshed, refused) = user.await.unwrap();
            assert!(refreshed > 0);
            sum = (sum.0 + refreshed, sum.1 + refused);
        }
        sum
    }
}

/// Refreshes until the store is back, and counts the refusals, of which each is an outage.
pub async fn until_refreshed(tokens: &RefreshTokens, token: &str) -> (String, u32) {
    let begun = Instant::now();
    let mut outages = 0;
    loop {
        match tokens.refresh(token, None).await {
            Ok(granted) => return (granted.token.expose().to_owned(), outages),
            Err(refused) => {
                assert!(matches!(refused, RefreshError::Store(_)), "{refused:?}");
                assert_eq!(Rejection::from(&refused).status(), 503);
            }
        }
        outages += 1;
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
