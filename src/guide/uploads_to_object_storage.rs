//! Uploads to object storage: checked while they stream, visible only when all of it was accepted.
//!
//! ```
//! use axum::{Extension, Router, extract::{DefaultBodyLimit, Multipart}, routing::post};
//! use object_store::memory::InMemory;
//! use portcullis::{
//!     Rejection, RejectionKind,
//!     upload::{CheckedUpload, MIB, UploadLayer, UploadPolicy, object_store::ObjectSink},
//! };
//! use std::{convert::Infallible, sync::Arc};
//!
//! async fn upload(
//!     Extension(sink): Extension<ObjectSink>,
//!     Extension(upload): Extension<CheckedUpload>,
//!     mut form: Multipart,
//! ) -> Result<String, Rejection> {
//!     let unreadable = |_| Rejection::new(RejectionKind::BadRequest, "upload", "unreadable");
//!     let mut hand_off = sink.begin(upload);
//!     while let Some(mut field) = form.next_field().await.map_err(unreadable)? {
//!         if field.file_name().is_none_or(str::is_empty) {
//!             continue;
//!         }
//!         hand_off.begin_file().await?;
//!         while let Some(chunk) = field.chunk().await.map_err(unreadable)? {
//!             hand_off.write(chunk).await?;
//!         }
//!     }
//!     // The only moment from which anybody finds the objects.
//!     Ok(hand_off.commit().await?.len().to_string())
//! }
//!
//! # fn routes() -> Result<Router, Box<dyn std::error::Error>> {
//! let sink = ObjectSink::new(Arc::new(InMemory::new())).prefix("incoming")?;
//! let gate = UploadLayer::new(UploadPolicy::images().max_file(50 * MIB).compat());
//! let route = post(upload)
//!     .layer::<_, Infallible>(Extension(sink))
//!     .layer::<_, Infallible>(DefaultBodyLimit::disable())
//!     .layer(gate);
//! Ok(Router::new().route("/", route))
//! # }
//! # assert!(routes().is_ok());
//! ```
//!
//! 1. **Choose what may come**: [`UploadPolicy::images`](crate::upload::UploadPolicy::images) or the
//!    types by name. Types are told from content; the extension and the declared type have to agree.
//! 2. **Stream or spool.** Streaming costs flat memory, and the object stays an unfinished multipart
//!    upload until the verdict. With [`scan_with`](crate::upload::UploadPolicy::scan_with) a scanner's
//!    verdict is part of it; where a handler must not see one byte of what is refused,
//!    [`spool`](crate::upload::UploadPolicy::spool).
//! 3. **Names**: objects get random ones. Keep the user's name as data and never as a path.
//! 4. **Serve them from another origin** than the pages, with `Content-Disposition: attachment` for
//!    what is not a picture.
//!
//! Deployment caveat: a process that is killed leaves unfinished multipart uploads behind, which cost
//! money and which nobody can read. Give the bucket a lifecycle rule that ends them after a day.
//!
//! A program: `examples/upload_to_object_store.rs`.
