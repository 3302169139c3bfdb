//! What users call with an access token.

use axum::{
    Json,
    extract::{Multipart, multipart::MultipartError},
};
use http::StatusCode;
use portcullis::{
    Identity, Rejection, RejectionKind, jwt::Claims, problem::ProblemJson, upload::CheckedUpload,
};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The service's own claims.
#[derive(Debug, Deserialize)]
pub(crate) struct Profile {
    preferred_username: String,
}

/// `GET /api/me`, from the token alone.
pub(crate) async fn me(identity: Identity, profile: Claims<Profile>) -> Json<Value> {
    Json(json!({
        "id": identity.subject(),
        "username": profile.preferred_username,
        "session_id": identity.session(),
    }))
}

#[derive(Deserialize)]
pub(crate) struct Prompt {
    prompt: String,
}

/// `POST /api/model`: an echo stands in for the model.
pub(crate) async fn model(ProblemJson(body): ProblemJson<Prompt>) -> Json<Value> {
    Json(json!({"completion": body.prompt}))
}

/// `POST /api/upload`: digests each file as it streams; the gate has judged it before this answers.
pub(crate) async fn upload(
    upload: axum::Extension<CheckedUpload>,
    mut form: Multipart,
) -> Result<(StatusCode, Json<Value>), Rejection> {
    let mut files = Vec::new();
    while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
        if field.file_name().is_none() {
            continue;
        }
        let (mut digest, mut bytes) = (Sha256::new(), 0_u64);
        while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
            digest.update(&chunk);
            bytes += chunk.len() as u64;
        }
        let sha256: String = digest
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        files.push((sha256, bytes));
    }
    let accepted = upload.accepted().await.map_err(|_| incomplete())?;
    let files: Vec<Value> = accepted
        .iter()
        .zip(files)
        .map(|(file, (sha256, bytes))| {
            json!({
                "name": file.name(),
                "content_type": file.media_type(),
                "bytes": bytes,
                "sha256": sha256,
            })
        })
        .collect();
    if files.is_empty() {
        return Err(
            Rejection::new(RejectionKind::Unprocessable, "upload", "no_file")
                .with_detail("Send at least one file."),
        );
    }
    Ok((StatusCode::CREATED, Json(json!({"files": files}))))
}

fn unreadable(_: MultipartError) -> Rejection {
    incomplete()
}

fn incomplete() -> Rejection {
    Rejection::new(RejectionKind::BadRequest, "upload", "incomplete")
}
