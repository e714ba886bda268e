//! The description of the API as it is served: for programs, and as a page for people that needs nothing but itself.

use std::sync::LazyLock;

use axum::{Router, response::IntoResponse as _, response::Response, routing::get};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderValue, Method, header};
use muster_proto::digest;

use super::{not_that_way, openapi};

const PAGE: &str = include_str!("docs.html");

/// The routes of both. Who may have them stands in the table of methods.
pub fn about() -> Router {
    Router::new()
        .route("/openapi.json", get(async || description()))
        .route("/docs", get(async || page()))
}

/// For whoever asks for a plain path in another way.
pub async fn only_get(method: Method) -> Response {
    not_that_way(&method, &[Method::GET, Method::HEAD])
}

fn description() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], openapi::text()).into_response()
}

fn page() -> Response {
    let mut response = PAGE.into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/html; charset=utf-8"),
    );
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(policy) = HeaderValue::from_str(&POLICY) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The script and the style of the page and no others; no network but the description.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "default-src 'none'; script-src '{}'; style-src '{}'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'",
        hash_of("script"),
        hash_of("style")
    )
});

/// As a policy names what stands within the page.
fn hash_of(element: &str) -> String {
    let inner = PAGE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")))
        .map_or("", |(inner, _)| inner);
    let digest = digest::of_bytes(inner.as_bytes());
    let hex = digest.trim_start_matches("sha256:").as_bytes();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap_or_default(), 16).unwrap_or_default();
    let bytes: Vec<u8> = hex.chunks(2).map(byte).collect();
    format!("sha256-{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_held_to_its_own_script_and_style() {
        assert_eq!(PAGE.matches("<script").count(), 1, "one, and without attributes");
        assert_eq!(PAGE.matches("<script>").count(), 1);
        assert_eq!(PAGE.matches("<style>").count(), 1);
        assert!(!PAGE.contains(" style=") && !PAGE.contains(" onclick=") && !PAGE.contains("innerHTML"));
        let hash = hash_of("script");
        assert_eq!(hash.len(), "sha256-".len() + 44, "{hash}");
        assert_ne!(hash, hash_of("style"));
        assert!(POLICY.contains(&hash), "{}", *POLICY);
    }
}
