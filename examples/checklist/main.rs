//! Runs the production checklist of `secure_api` with the environment that it would run with.
//!
//! `cargo run --example checklist --all-features` prints a table, with `-- --json` JSON for CI. The
//! exit code is 1 when a line fails, and 2 when the settings cannot be used.
#![allow(dead_code, reason = "the server itself is not started here")]

#[path = "../secure_api/accounts.rs"]
mod accounts;
#[path = "../secure_api/api.rs"]
mod api;
#[path = "../secure_api/auth.rs"]
mod auth;
#[path = "../secure_api/checklist.rs"]
mod checklist;
#[path = "../secure_api/health.rs"]
mod health;
#[path = "../secure_api/keys.rs"]
mod keys;
#[path = "../secure_api/metrics.rs"]
mod metrics;
#[path = "../secure_api/page.rs"]
mod page;
#[path = "../secure_api/start.rs"]
mod start;

use std::{error::Error, process::ExitCode};

use portcullis::stack::Settings;
use start::StartError;

#[tokio::main]
async fn main() -> ExitCode {
    let as_json = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--json") => true,
        Some(_) => {
            eprintln!("usage: checklist [--json]");
            return ExitCode::from(2);
        }
    };
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(faults) => return unusable(&faults),
    };
    let service = match start::service(&settings, settings.bind_addr).await {
        Ok(service) => service,
        Err(StartError::Settings(fault)) => return unusable(&fault),
        Err(StartError::Store(error)) => return unusable(&*error),
    };
    let checklist = checklist::run(&settings, &service).await;
    match as_json {
        true => println!("{}", checklist.to_json()),
        false => println!("{checklist}"),
    }
    ExitCode::from(u8::from(!checklist.holds()))
}

fn unusable(faults: &dyn Error) -> ExitCode {
    eprintln!("{faults}");
    ExitCode::from(2)
}
