//! What a client of one instance asks.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering},
};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::Failure;

pub(crate) struct Client {
    http: reqwest::Client,
    url: String,
}

/// The tokens of a session.
pub(crate) struct Session {
    pub(crate) access: String,
    refresh: String,
}

impl Client {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            http: reqwest::Client::new(),
            url: url.to_owned(),
        }
    }

    pub(crate) async fn register(&self, name: &str) -> Result<(), Failure> {
        let body = json!({"username": name, "password": PASSWORD});
        let request = self.ask(Method::POST, "/auth/register").json(&body);
        expect(request.send().await?, StatusCode::CREATED).map(drop)
    }

    pub(crate) async fn log_in(&self, name: &str) -> Result<Session, Failure> {
        let body = json!({"username": name, "password": PASSWORD});
        let request = self.ask(Method::POST, "/auth/login").json(&body);
        let answer = expect(request.send().await?, StatusCode::OK)?;
        session(answer).await
    }

    /// The session's next tokens; none where the store is away.
    pub(crate) async fn refresh(&self, old: &Session) -> Result<Option<Session>, Failure> {
        let body = json!({"refresh_token": old.refresh});
        let request = self.ask(Method::POST, "/auth/refresh").json(&body);
        let answer = request.send().await?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Ok(None);
        }
        session(expect(answer, StatusCode::OK)?).await.map(Some)
    }

    pub(crate) async fn log_out(&self, session: &Session) -> Result<(), Failure> {
        let body = json!({"refresh_token": session.refresh});
        let request = self.ask(Method::POST, "/auth/logout").json(&body);
        expect(request.send().await?, StatusCode::NO_CONTENT).map(drop)
    }

    /// A new API key: its id, and itself.
    pub(crate) async fn create_key(&self, session: &Session) -> Result<(String, String), Failure> {
        let request = self.ask(Method::POST, "/api/keys");
        let request = request.bearer_auth(&session.access);
        let answer = request.json(&json!({"name": "ci"})).send().await?;
        let made: Value = expect(answer, StatusCode::CREATED)?.json().await?;
        Ok((text(&made, "id")?, text(&made, "key")?))
    }

    pub(crate) async fn revoke_key(&self, session: &Session, id: &str) -> Result<(), Failure> {
        let request = self.ask(Method::DELETE, &format!("/api/keys/{id}"));
        let answer = request.bearer_auth(&session.access).send().await?;
        expect(answer, StatusCode::NO_CONTENT).map(drop)
    }

    /// The status that a token is answered with.
    pub(crate) async fn get(&self, path: &str, token: &str) -> Result<u16, Failure> {
        let request = self.ask(Method::GET, path).bearer_auth(token);
        Ok(request.send().await?.status().as_u16())
    }

    /// The status of a limited request from `client`.
    pub(crate) async fn limited(&self, client: &str) -> Result<u16, Failure> {
        let request = self.http.get(format!("{}/auth/sessions", self.url));
        let answer = request.header(FORWARDED, client).send().await?;
        Ok(answer.status().as_u16())
    }

    /// `ok`, or what is degraded.
    pub(crate) async fn health(&self) -> Result<String, Failure> {
        let answer: Value = self
            .http
            .get(format!("{}/healthz", self.url))
            .send()
            .await?
            .json()
            .await?;
        text(&answer, "detail").or_else(|_| text(&answer, "status"))
    }

    /// Each from a client of its own, so that no limit is in the way.
    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        let client = CLIENTS.fetch_add(1, Ordering::Relaxed);
        let from = Ipv4Addr::from_bits(client).to_string();
        let request = self.http.request(method, format!("{}{path}", self.url));
        request
            .header(FORWARDED, from)
            .header("sec-fetch-site", "none")
    }
}

async fn session(answer: Response) -> Result<Session, Failure> {
    let pair: Value = answer.json().await?;
    Ok(Session {
        access: text(&pair, "access_token")?,
        refresh: text(&pair, "refresh_token")?,
    })
}

fn expect(answer: Response, status: StatusCode) -> Result<Response, Failure> {
    match answer.status() == status {
        true => Ok(answer),
        false => Err(format!("{} answered {}", answer.url().path(), answer.status()).into()),
    }
}

fn text(value: &Value, member: &str) -> Result<String, Failure> {
    let text = value[member].as_str().map(str::to_owned);
    text.ok_or_else(|| format!("no {member} in an answer").into())
}

/// From 10.0.0.0 on.
static CLIENTS: AtomicU32 = AtomicU32::new(10 << 24);
const PASSWORD: &str = "correct horse battery";
const FORWARDED: &str = "x-forwarded-for";
