//! API keys: made, listed, rotated and ended by a user who is logged in; used by his programs.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use portcullis::{
    Identity,
    api_key::{ApiKeyError, ApiKeyId, ApiKeyRecord, MintedKey, NewApiKey},
    problem::ProblemJson,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::start::App;

#[derive(Deserialize)]
pub(crate) struct NewKey {
    name: String,
}

#[derive(Deserialize)]
pub(crate) struct Rotation {
    /// How long the old key works beside the new one.
    overlap_secs: Option<u64>,
}

/// `POST /api/keys`: the one time that the key is shown.
pub(crate) async fn create(
    State(app): State<Arc<App>>,
    identity: Identity,
    ProblemJson(body): ProblemJson<NewKey>,
) -> Result<(StatusCode, Json<Value>), ApiKeyError> {
    let minted = app
        .keys
        .create(&identity, NewApiKey::new(body.name))
        .await?;
    Ok((StatusCode::CREATED, Json(shown(&minted))))
}

/// `GET /api/keys`
pub(crate) async fn list(
    State(app): State<Arc<App>>,
    identity: Identity,
) -> Result<Json<Value>, ApiKeyError> {
    let keys = app.keys.list(identity.subject()).await?;
    let keys: Vec<Value> = keys.iter().map(listed).collect();
    Ok(Json(json!({"keys": keys})))
}

/// `POST /api/keys/{id}/rotate`
pub(crate) async fn rotate(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
    body: Option<ProblemJson<Rotation>>,
) -> Result<Json<Value>, ApiKeyError> {
    let id = known(&id)?;
    let asked = body.and_then(|ProblemJson(body)| body.overlap_secs);
    let overlap = asked.map_or(OVERLAP, Duration::from_secs);
    let minted = app.keys.rotate(&identity, id, overlap).await?;
    let mut answer = shown(&minted);
    answer["replaces"] = json!(id.as_str());
    Ok(Json(answer))
}

/// `DELETE /api/keys/{id}`: it ends at once.
pub(crate) async fn revoke(
    State(app): State<Arc<App>>,
    identity: Identity,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiKeyError> {
    app.keys.revoke(&identity, known(&id)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /api/ping`, for programs.
pub(crate) async fn ping() -> Json<Value> {
    Json(json!({"pong": true}))
}

fn known(id: &str) -> Result<ApiKeyId, ApiKeyError> {
    id.parse().map_err(|_| ApiKeyError::NotFound)
}

fn shown(minted: &MintedKey) -> Value {
    let record = minted.record();
    json!({
        "id": record.id.as_str(),
        "name": record.name,
        "key": minted.key().expose(),
        "created_at": record.created_at.as_secs(),
        "expires_at": record.expires_at.as_secs(),
    })
}

fn listed(record: &ApiKeyRecord) -> Value {
    json!({
        "id": record.id.as_str(),
        "name": record.name,
        "created_at": record.created_at.as_secs(),
        "expires_at": record.expires_at.as_secs(),
        "last_used_at": record.last_used_at.map(|at| at.as_secs()),
    })
}

const OVERLAP: Duration = Duration::from_secs(86_400);
