//! The page that drives the service from a browser.

use axum::response::Html;
use portcullis::headers::CspNonce;

/// `GET /`: one document; its style and script stand in it under the request's nonce.
pub(crate) async fn page(nonce: CspNonce) -> Html<String> {
    Html(
        include_str!("index.html")
            .replace("{{css}}", include_str!("app.css"))
            .replace("{{js}}", include_str!("app.js"))
            .replace("{{nonce}}", nonce.as_str()),
    )
}
