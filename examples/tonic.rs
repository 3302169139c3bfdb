//! A gRPC service behind a stack: a refusal is a gRPC status, and the client sees
//! `UNAUTHENTICATED`, `PERMISSION_DENIED` or `RESOURCE_EXHAUSTED`.
//!
//! `cargo run --example tonic --features tonic`. It serves, calls itself as a client would, and
//! prints what the client saw. The health service stands for one's own.

use std::{error::Error, time::Duration};

use portcullis::{
    Context, Peer, Secret,
    client::{ClientLayer, TrustedProxies},
    jwt::{AccessToken, Algorithm, Issuer, JwtLayer, SigningKey, Verifier},
    rate_limit::{Policy, RateLimitLayer},
    stack::{Guard, SecurityStack},
};
use tokio::net::TcpListener;
use tonic::{
    Code, Request,
    transport::{Channel, Server, server::TcpConnectInfo, server::TcpIncoming},
};
use tonic_health::{
    pb::{HealthCheckRequest, health_client::HealthClient},
    server::health_reporter,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let context = Context::new();
    let key = SigningKey::secret(Algorithm::HS256, &Secret::generate())?;
    let issuer = Issuer::new(key, "tonic-example", "tonic-example")?;
    let verifier = Verifier::new(issuer.key_set(), "tonic-example", "tonic-example")?;

    // tonic leaves the peer in a type of its own.
    let client = ClientLayer::new(TrustedProxies::none()).with_peer_from(|extensions| {
        let peer = extensions.get::<TcpConnectInfo>()?.remote_addr()?;
        Some(Peer::new(peer))
    });
    let calls = Policy::strict("calls", 4, Duration::from_secs(60))?;
    let stack = SecurityStack::new(context.clone())
        .with_client(client)
        .with_limits(RateLimitLayer::new([calls]))
        .with_jwt(JwtLayer::new(verifier));
    let guard = Guard::new().limit("calls").authenticate().scope("health");

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    let (_reporter, health) = health_reporter();
    let server = Server::builder()
        .layer(stack.layer())
        .layer(stack.route(guard)?)
        .add_service(health)
        .serve_with_incoming(TcpIncoming::from(listener));
    tokio::spawn(server);

    let channel = Channel::from_shared(address)?.connect().await?;
    let mut client = HealthClient::new(channel);
    let token = |scope| {
        let token = AccessToken::new("prober").with_scopes([scope]);
        issuer.issue(&token, context.wall())
    };
    println!("without a token: {:?}", check(&mut client, None).await?);
    let other = token("reports")?;
    println!(
        "without the scope: {:?}",
        check(&mut client, Some(other.as_str())).await?
    );
    let allowed = token("health")?;
    println!(
        "with it: {:?}",
        check(&mut client, Some(allowed.as_str())).await?
    );
    check(&mut client, Some(allowed.as_str())).await?;
    println!(
        "the fifth call: {:?}",
        check(&mut client, Some(allowed.as_str())).await?
    );
    Ok(())
}

/// The status that a call ends with.
async fn check(
    client: &mut HealthClient<Channel>,
    token: Option<&str>,
) -> Result<Code, Box<dyn Error>> {
    let mut request = Request::new(HealthCheckRequest::default());
    if let Some(token) = token {
        let credentials = format!("Bearer {token}").parse()?;
        request.metadata_mut().insert("authorization", credentials);
    }
    let answer = client.check(request).await;
    Ok(answer.map_or_else(|status| status.code(), |_| Code::Ok))
}
