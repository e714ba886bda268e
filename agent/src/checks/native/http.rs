//! `run.http`: an HTTP request.
//!
//! | parameter | |
//! |---|---|
//! | `url` | http or https |
//! | `method`, `headers` | GET by default |
//! | `expectStatus` | codes that are good, `200` or `2xx`; `2xx` and `3xx` by default |
//! | `expectBody` | the first MiB of the body contains it |
//! | `warning`, `critical` | a problem when the answer takes at least this long |
//! | `insecure` | do not verify the server's certificate |
//!
//! Certificates are verified with the system's roots. Up to five redirects are followed; what counts is the last answer.
//! No answer in time, another status or another body are critical.

use std::time::{Duration, Instant};

use muster_proto::v1::HttpRun;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use tokio::time;

use super::{CheckState, Finding, by_time, duration, plain, span, time_value, value};

const KIND: &str = "HTTP";
const MAX_BODY: usize = 1024 * 1024;
const MAX_REDIRECTS: usize = 5;

pub(super) async fn run(run: &HttpRun, limit: Duration) -> Finding {
    let request = match Request::new(run) {
        Ok(request) => request,
        Err(error) => return Finding::new(KIND, CheckState::Unknown, error),
    };
    let started = Instant::now();
    match time::timeout(limit, request.send()).await {
        Ok(Ok(answer)) => judge(run, &answer, started.elapsed(), limit),
        Ok(Err(problem)) => Finding::new(KIND, CheckState::Critical, problem),
        Err(_) => Finding::new(KIND, CheckState::Critical, format!("no answer after {}", span(limit))),
    }
}

struct Request {
    client: Client,
    request: reqwest::Request,
}

struct Answer {
    /// "HTTP/1.1 200 OK".
    line: String,
    status: StatusCode,
    body: Vec<u8>,
}

impl Request {
    /// What is wrong here is wrong with the check.
    fn new(run: &HttpRun) -> Result<Request, String> {
        let url = reqwest::Url::parse(&run.url).map_err(|error| format!("url: {error}"))?;
        let method = if run.method.is_empty() { "GET" } else { &run.method };
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| format!("method: {method:?} is none"))?;
        let mut headers = HeaderMap::new();
        for (name, value) in &run.headers {
            let name: HeaderName = name
                .parse()
                .map_err(|_| format!("headers: {name:?} is not a header's name"))?;
            // Its value may be a secret.
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("headers: the value of {name} has characters that a header cannot have"))?;
            headers.append(name, value);
        }
        let client = Client::builder()
            .user_agent(concat!("muster-agent/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::limited(MAX_REDIRECTS))
            .referer(false)
            .tls_danger_accept_invalid_certs(run.insecure)
            .no_proxy()
            .build()
            .map_err(|error| cause(&error))?;
        let request = client
            .request(method, url)
            .headers(headers)
            .build()
            .map_err(|error| cause(&error))?;
        Ok(Request { client, request })
    }

    async fn send(self) -> Result<Answer, String> {
        let mut response = self.client.execute(self.request).await.map_err(|error| words(&error))?;
        let status = response.status();
        let reason = status.canonical_reason().unwrap_or_default();
        let line = format!("{:?} {} {reason}", response.version(), status.as_u16())
            .trim_end()
            .to_owned();
        let body = body(&mut response)
            .await
            .map_err(|error| format!("{line}, but {}", words(&error)))?;
        Ok(Answer { line, status, body })
    }
}

async fn body(response: &mut Response) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_BODY - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if body.len() == MAX_BODY {
            break;
        }
    }
    Ok(body)
}

fn judge(run: &HttpRun, answer: &Answer, elapsed: Duration, limit: Duration) -> Finding {
    let (warning, critical) = (duration(run.warning.as_ref()), duration(run.critical.as_ref()));
    let size = answer.body.len();
    let values = vec![
        time_value(elapsed, warning, critical, limit),
        value("size", size as f64, "B"),
    ];
    let line = &answer.line;
    let (state, text) = if !status_is_good(&run.expect_status, answer.status) {
        let wanted = if run.expect_status.is_empty() {
            "2xx, 3xx".to_owned()
        } else {
            run.expect_status.join(", ")
        };
        (CheckState::Critical, format!("{line}, expected {wanted}"))
    } else if !contains(&answer.body, run.expect_body.as_bytes()) {
        (
            CheckState::Critical,
            format!("{line}, but the body of {size} bytes lacks {:?}", run.expect_body),
        )
    } else {
        let text = format!(
            "{line} - {size} bytes in {:.3} second response time",
            elapsed.as_secs_f64()
        );
        (by_time(elapsed, warning, critical), text)
    };
    Finding::new(KIND, state, text).with(values)
}

/// `2xx` is a class of codes.
fn status_is_good(expected: &[String], status: StatusCode) -> bool {
    let code = status.as_str();
    let fits = |pattern: &str| match pattern.strip_suffix("xx") {
        Some(class) => class == &code[..1],
        None => pattern == code,
    };
    if expected.is_empty() {
        fits("2xx") || fits("3xx")
    } else {
        expected.iter().any(|pattern| fits(pattern))
    }
}

fn contains(body: &[u8], text: &[u8]) -> bool {
    text.is_empty() || body.windows(text.len()).any(|window| window == text)
}

/// Why there is no answer. The URL is left out: it may hold a password, and the check names it.
fn words(error: &reqwest::Error) -> String {
    let host = error.url().and_then(|url| {
        let host = url.host_str()?;
        Some(format!("{host}:{}", url.port_or_known_default()?))
    });
    let host = host.as_deref().unwrap_or("the server");
    if error.is_redirect() {
        return format!("more than {MAX_REDIRECTS} redirects, the last to {host}");
    }
    let what = if error.is_connect() {
        format!("connecting to {host} failed")
    } else if error.is_body() || error.is_decode() {
        format!("the body from {host} broke off")
    } else {
        format!("the request to {host} failed")
    };
    format!("{what}: {}", cause(error))
}

/// The innermost cause, which says what happened; those around it only say that something did.
fn cause(error: &reqwest::Error) -> String {
    let mut innermost: &dyn std::error::Error = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    plain(innermost)
}

#[cfg(test)]
mod tests;
