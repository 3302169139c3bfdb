//! A plain hyper service, HTTP/1.1 and HTTP/2, behind a stack. No framework.
//!
//! `cargo run --example hyper --no-default-features --features headers,rate-limit`, then
//! `curl -i http://…/` and `curl -i --http2-prior-knowledge http://…/` to the address that it prints.

use std::{convert::Infallible, error::Error, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use portcullis::{
    Client, Context, Peer,
    client::with_peer,
    headers::SecurityHeaders,
    rate_limit::{FieldsVersion, Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
};
use tower::{ServiceBuilder, service_fn};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let general = Policy::strict("general", 5, Duration::from_secs(60))?;
    let stack = SecurityStack::new(Context::new())
        .with_headers(SecurityHeaders::api())
        .with_limits(RateLimitLayer::new([general]).with_fields(FieldsVersion::Draft10));
    let service = ServiceBuilder::new()
        .layer(stack.layer())
        .layer(stack.route(Guard::new().limit("general"))?)
        .service(service_fn(hello));

    let mut server = auto::Builder::new(TokioExecutor::new());
    // Without a timer hyper waits for the head of a request for ever.
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10));
    server.http2().timer(TokioTimer::new());

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    loop {
        let (stream, addr) = listener.accept().await?;
        let service = TowerToHyperService::new(with_peer(service.clone(), Peer::new(addr)));
        let server = server.clone();
        tokio::spawn(async move {
            // A connection that breaks concerns nobody else.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn hello<B>(request: Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let client = request.extensions().get::<Client>().and_then(|c| c.ip());
    let told = client.map_or_else(|| "you".to_owned(), |ip| ip.to_string());
    Ok(Response::new(Full::from(format!("Hello, {told}\n"))))
}
