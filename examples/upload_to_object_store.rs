//! Uploads that are checked while they stream into an object store, and that nobody finds there
//! before all of the request was accepted.
//!
//! `cargo run --example upload_to_object_store --features axum,object-store -- ./uploads`, then
//! `curl -F file=@photo.png http://…/` to the address that it prints. The store is a directory here;
//! any other of the `object_store` crate takes its place.

use std::{convert::Infallible, error::Error, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Multipart, multipart::MultipartError},
    routing::post,
};
use object_store::local::LocalFileSystem;
use portcullis::{
    Rejection, RejectionKind,
    upload::{
        CheckedUpload, MIB, UploadLayer, UploadPolicy,
        object_store::{ObjectSink, StoredObject},
    },
};
use serde_json::{Value, json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("name a directory")?;
    std::fs::create_dir_all(&dir)?;
    let store = LocalFileSystem::new_with_prefix(dir)?;
    let sink = ObjectSink::new(Arc::new(store)).prefix("incoming")?;
    let policy = UploadPolicy::images().max_file(50 * MIB).compat();
    let upload = post(upload)
        .layer::<_, Infallible>(Extension(sink))
        // axum's extractors stop at 2 MB by themselves; the gate counts.
        .layer::<_, Infallible>(DefaultBodyLimit::disable())
        .layer(UploadLayer::new(policy));
    let router: Router = Router::new().route("/", upload);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn upload(
    Extension(sink): Extension<ObjectSink>,
    Extension(upload): Extension<CheckedUpload>,
    mut form: Multipart,
) -> Result<Json<Value>, Rejection> {
    let mut hand_off = sink.begin(upload);
    while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
        // A text field, or a file input that was left empty.
        if field.file_name().is_none_or(str::is_empty) {
            continue;
        }
        hand_off.begin_file().await?;
        while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
            hand_off.write(chunk).await?;
        }
    }
    let stored = hand_off.commit().await?;
    let told = |object: &StoredObject| {
        json!({
            "location": object.location(),
            "name": object.file().name(),
            "bytes": object.file().bytes(),
        })
    };
    Ok(Json(stored.iter().map(told).collect()))
}

fn unreadable(_: MultipartError) -> Rejection {
    Rejection::new(RejectionKind::BadRequest, "upload", "unreadable")
}
