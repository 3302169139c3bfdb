//! Three instances of `secure_api` on one PostgreSQL and one Redis, driven to see that they behave
//! as one.
//!
//! `cargo build --all-features --examples && cargo run --all-features --example cluster` starts
//! private servers in a temporary folder, prints what it sees, and stops them. The exit code is 1
//! when something is not as it should be. It needs `redis-server` (or what `REDIS_SERVER` names) and
//! PostgreSQL's programs (in the folder that `POSTGRES_BIN` names, or where Debian keeps them).

mod client;
mod servers;

use std::{
    error::Error,
    process::ExitCode,
    time::{Duration, Instant},
};

use client::Client;
use servers::{Instance, Postgres, Redis};

type Failure = Box<dyn Error>;

#[tokio::main]
async fn main() -> ExitCode {
    let mut seen = Seen::default();
    match drive(&mut seen).await {
        Ok(()) if seen.wrong == 0 => {
            println!("{} of {} are as they should be", seen.all, seen.all);
            ExitCode::SUCCESS
        }
        Ok(()) => {
            eprintln!("{} of {} are not as they should be", seen.wrong, seen.all);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// What was looked at.
#[derive(Default)]
struct Seen {
    all: usize,
    wrong: usize,
}

impl Seen {
    fn note(&mut self, is_right: bool, what: &str) {
        self.all += 1;
        self.wrong += usize::from(!is_right);
        println!("{} {what}", if is_right { "  ok " } else { "WRONG" });
    }
}

async fn drive(seen: &mut Seen) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let mut postgres = Postgres::start(dir.path())?;
    let mut redis = Redis::start(dir.path())?;
    println!("PostgreSQL and Redis answer");
    let mut instances = Vec::new();
    for _ in 0..3 {
        let instance = Instance::start(dir.path(), &postgres.url(), &redis.url())?;
        println!("an instance at {}", instance.url);
        instances.push(instance);
    }
    let [a, b, c] = [0, 1, 2].map(|n| Client::new(&instances[n].url));
    let all = [&a, &b, &c];

    println!("\nOne user");
    a.register("alice").await?;
    let mut session = a.log_in("alice").await?;
    let mut known = 0;
    for instance in all {
        known += usize::from(instance.get("/api/me", &session.access).await? == 200);
    }
    seen.note(known == 3, "a login at one instance counts at all three");
    for instance in [&b, &c, &a] {
        session = instance
            .refresh(&session)
            .await?
            .ok_or("a refresh failed")?;
    }
    seen.note(true, "its session is refreshed at one after the other");

    println!("\nOne limit");
    let mut admitted = 0;
    for n in 0..3 * LIMIT {
        admitted += usize::from(all[n % 3].limited("198.51.100.1").await? != 429);
    }
    let told = format!(
        "{admitted} of {} requests to the three are admitted: {LIMIT} may be",
        3 * LIMIT
    );
    seen.note(admitted == LIMIT, &told);

    println!("\nOne end");
    let key = b.create_key(&session).await?;
    for instance in all {
        instance.get("/api/ping", &key.1).await?;
    }
    b.revoke_key(&session, &key.0).await?;
    felt(seen, "an API key revoked at one", &all, "/api/ping", &key.1).await?;
    c.log_out(&session).await?;
    felt(seen, "a logout at one", &all, "/api/me", &session.access).await?;

    println!("\nRedis is killed");
    let session = a.log_in("alice").await?;
    redis.kill();
    let degraded = health(&all, |health| health == "degraded: limits, deny_list").await?;
    seen.note(
        degraded,
        "/healthz of each says: degraded: limits, deny_list",
    );
    let begun = Instant::now();
    let status = a.get("/api/me", &session.access).await?;
    let told = format!("a user is answered {status} in {:?}", begun.elapsed());
    seen.note(status == 200 && begun.elapsed() < 2 * SECOND, &told);
    let mut admitted = 0;
    for n in 0..6 * LIMIT {
        admitted += usize::from(all[n % 3].limited("198.51.100.2").await? != 429);
    }
    let told = format!(
        "{admitted} of {} requests are admitted: {LIMIT} may be by each",
        6 * LIMIT
    );
    seen.note(admitted == 3 * LIMIT, &told);
    b.log_out(&session).await?;
    felt(seen, "a logout at one", &all, "/api/me", &session.access).await?;
    redis.start_again()?;
    let well = health(&all, |health| health == "ok").await?;
    seen.note(well, "it comes back empty, and /healthz of each says: ok");

    println!("\nPostgreSQL is killed");
    let session = a.log_in("alice").await?;
    postgres.kill();
    let status = b.get("/api/me", &session.access).await?;
    seen.note(status == 200, "an access token needs no store");
    let refused = b.refresh(&session).await?.is_none();
    seen.note(refused, "a refresh is answered 503");
    postgres.start_again()?;
    let well = health(&all, |health| health == "ok").await?;
    seen.note(well, "it comes back, and /healthz of each says: ok");
    let goes_on = c.refresh(&session).await?.is_some();
    seen.note(goes_on, "and the session goes on");

    println!("\nAn instance leaves");
    let left = instances.pop().is_some_and(Instance::stop);
    seen.note(left, "it ends by itself within 5 s");
    let session = a.log_in("alice").await?;
    let status = b.get("/api/me", &session.access).await?;
    seen.note(status == 200, "the others go on");
    println!();
    Ok(())
}

/// Waits until all refuse the token, which takes no longer than a second.
async fn felt(
    seen: &mut Seen,
    what: &str,
    all: &[&Client],
    path: &str,
    token: &str,
) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut refused = 0;
    while refused < all.len() && begun.elapsed() < PATIENCE {
        refused = 0;
        for instance in all {
            refused += usize::from(instance.get(path, token).await? == 401);
        }
    }
    let time = begun.elapsed();
    let told = format!(
        "{what} is felt by {refused} of {} after {time:?}",
        all.len()
    );
    seen.note(refused == all.len() && time < SECOND, &told);
    Ok(())
}

/// Whether `/healthz` of each comes to say so.
async fn health(all: &[&Client], says: impl Fn(&str) -> bool) -> Result<bool, Failure> {
    let begun = Instant::now();
    let mut told = 0;
    while told < all.len() && begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        told = 0;
        for instance in all {
            told += usize::from(says(&instance.health().await?));
        }
    }
    Ok(told == all.len())
}

/// Requests of a client in the window of a minute; the instances are started with it.
const LIMIT: usize = 20;
const SECOND: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(30);
