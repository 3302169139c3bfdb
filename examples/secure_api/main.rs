//! The service that the security policy describes, built on axum with this crate's public API.
//!
//! `cargo run --release --example secure_api --all-features`, then open the address that it prints.

mod accounts;
mod api;
mod auth;
mod checklist;
mod health;
mod keys;
mod metrics;
mod page;
mod server;
mod start;
mod upkeep;

use std::process::ExitCode;

use portcullis::stack::Settings;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(faults) => return unusable(&faults),
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    // Whoever reads the log may be slow or gone: lines are dropped then, and no request waits.
    let (stderr, _written) = tracing_appender::non_blocking(std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error),
    };
    runtime.block_on(run(settings))
}

async fn run(settings: Settings) -> ExitCode {
    let bound = async {
        let listener = TcpListener::bind(settings.bind_addr).await?;
        let addr = listener.local_addr()?;
        let stop = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        std::io::Result::Ok((listener, addr, stop))
    };
    let (listener, addr, (mut interrupt, mut terminate)) = match bound.await {
        Ok(bound) => bound,
        Err(error) => return failed(&error),
    };
    let service = match start::service(&settings, addr).await {
        Ok(service) => service,
        Err(start::StartError::Settings(fault)) => return unusable(&fault),
        Err(start::StartError::Store(error)) => return failed(&*error),
    };
    if settings.is_production() {
        let checklist = checklist::run(&settings, &service).await;
        checklist.record();
        if !checklist.holds() {
            checklist.failing().for_each(|line| eprintln!("{line}"));
            return ExitCode::from(2);
        }
        tracing::info!("the production checklist:\n{checklist}");
    }
    let start::Service {
        edge, health, app, ..
    } = service;
    let probe = tokio::spawn(health.watch());
    let upkeep = tokio::spawn(upkeep::run(app.clone()));
    println!("secure_api listening on http://{addr}");
    let stop = async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    server::serve(listener, edge, settings.trusted_proxies.clone(), stop).await;
    probe.abort();
    upkeep.abort();
    if app.keys.flush().await.is_err() {
        tracing::warn!("the last uses of API keys were not stored");
    }
    ExitCode::SUCCESS
}

fn unusable(faults: &dyn std::error::Error) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::from(2)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("cannot start: {error}");
    ExitCode::FAILURE
}
