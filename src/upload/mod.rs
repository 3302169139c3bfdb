//! Uploads, checked while they stream: sizes, the multipart grammar, names, and types by content.
//!
//! The gate stands between the body and its reader, and reads along. It engages on
//! `multipart/form-data` and, where the policy says so, on bodies that are one file.
//!
//! 1. The body is multipart in one strict form (RFC 7578 without its freedoms), so that whatever
//!    reader stands behind sees the same parts, names and bytes: else 400.
//! 2. Body, files, fields, heads and names keep to the sizes and counts of the [`UploadPolicy`]:
//!    else 413.
//! 3. The declared type of a file, or without one the type of its content, is allowed: else 415.
//!    A body that is no form is 415 too, and an encoded one unless
//!    [`accept_gzip`](UploadPolicy::accept_gzip) asks for it.
//! 4. Content, declared type and extension agree, the name is safe, nothing stands behind the end of
//!    a PNG, JPEG, GIF, WebP, PDF or office document (zeros behind a picture are nothing), no second
//!    file hides in a picture, a film, a sound or a PDF, no document holds macros or is a template, and
//!    text holds nothing that a browser or an interpreter runs: else 422. What an archive holds is not
//!    looked at.
//! 5. The body keeps moving, and not at a trickle: else 408.
//!
//! The head and the first 4 KiB of a file are kept back until its name and type are accepted; the
//! boundary after a part until the part is, the last one until all are. So no reader sees a refused
//! part or body end cleanly. All other bytes pass without a copy, and memory does not grow with the
//! body.
//!
//! A refusal drops the handler and answers in its place, whatever the handler made of what it read;
//! see [`guarded`](crate::guarded). A handler's success waits until the body has ended, and what the
//! handler did not read is read and checked. [`CheckedUpload`] in the request's extensions tells the
//! handler what was accepted so far, and when all was.
//!
//! # What this cannot promise
//!
//! The body streams. A handler that acts for good on an early part may have acted when a later one
//! is refused: act after [`CheckedUpload::accepted`]. A task that outlives the response sees the
//! refusal as a body error.
//!
//! # Deployment caveats
//!
//! - axum's `Multipart` has a limit of its own, 2 MB for the whole body: lift it with
//!   `DefaultBodyLimit::disable()` on the route; this gate counts.
//! - A gRPC request, or a tunnel (`CONNECT`) without a `Content-Type`, is no upload and passes
//!   unchecked, without a [`CheckedUpload`]; with [`raw_bodies`](UploadPolicy::raw_bodies), where a
//!   handler may keep any body as a file, they are answered 415.
//! - A part with a media type other than `text/plain` and no file name is a file to some readers and
//!   a field to others, and is answered 400.
//! - Office documents are taken without macros and as no template; encrypted ones are refused. What a
//!   document links to is not looked at.
//! - SVG is allowed by [`allow_svg`](UploadPolicy::allow_svg) only.
//! - Phones write files behind their JPEGs ("motion photos"); these are refused. Further pictures
//!   that the JPEG announces (MPF) are not.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use portcullis::{
//!     guarded::GuardedBody,
//!     upload::{MIB, UploadLayer, UploadPolicy},
//! };
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(UploadLayer::new(UploadPolicy::images().max_file(5 * MIB)))
//!     .service(service_fn(async |request: Request<GuardedBody<Full<Bytes>>>| {
//!         request.into_body().collect().await?;
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::new(Full::<Bytes>::default()))
//!     }));
//!
//! // A program that says it is a picture.
//! let request = Request::post("/")
//!     .header("content-type", "multipart/form-data; boundary=B")
//!     .body(Full::from(concat!(
//!         "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\n",
//!         "Content-Type: image/png\r\n\r\n\x7fELF\x02\x01\x01\r\n--B--\r\n",
//!     )))
//!     .unwrap();
//! assert_eq!(service.oneshot(request).await.unwrap().status(), 422);
//! # });
//! ```

mod check;
mod content_type;
mod decode;
mod ending;
mod fault;
mod file_name;
mod handle;
mod judge;
mod layer;
mod media;
#[cfg(feature = "object-store")]
pub mod object_store;
mod package;
mod pairs;
mod parasite;
mod part;
mod picture;
mod policy;
pub mod scan;
mod service;
mod spool;
mod svg;
mod text;
mod walk;

#[allow(unused_imports)]
pub(crate) use self::check::{AdmittedUpload, UploadCheck, Uploads};
pub use self::{
    handle::{CheckedFile, CheckedUpload, NotAccepted},
    layer::UploadLayer,
    media::{Signatures, TypeDetector, TypeTest},
    policy::{KIB, MIB, UploadPolicy},
    service::Upload,
    spool::Spool,
};
