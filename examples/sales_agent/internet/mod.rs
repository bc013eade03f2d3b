//! A small internet on loopback: company sites, news, a language model and a mail service.
//!
//! It is reached as an HTTP proxy, so the agent asks for `http://nordwind-cycles.example/about` as it
//! would in life. What each host says is in the files beside this one; here is the door, and the
//! weather: slow answers, refusals and lost replies, the same ones for the same seed.

mod companies;
mod faults;
mod model;
mod post;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use axum::{
    Router,
    body::Bytes,
    extract::{Query, State},
    http::{HeaderMap, Method, StatusCode, Uri, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use tokio::{net::TcpListener, time::sleep};

use faults::Fault;
pub(crate) use post::Delivery;
use post::PostOffice;

use crate::http;

/// How long the clients of this internet wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_millis(1_500);

pub(crate) struct Internet {
    url: String,
    seed: u64,
    asked: Mutex<HashMap<String, u32>>,
    counts: Mutex<BTreeMap<&'static str, u32>>,
    post: PostOffice,
}

impl Internet {
    /// Opens it on a free port. Whoever clicks in a mail is reported to `webhook`.
    pub(crate) async fn start(seed: u64, webhook: String) -> Result<Arc<Internet>> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let internet = Arc::new(Internet {
            url: format!("http://{}", listener.local_addr()?),
            seed,
            asked: Mutex::default(),
            counts: Mutex::default(),
            post: PostOffice::new(seed, webhook, http::local(PATIENCE)?),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&internet));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(internet)
    }

    /// Where it is, for a client that uses it as its proxy.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Every mail that was delivered.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.post.deliveries()
    }

    /// How often it answered, and how often in which bad way.
    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u32> {
        locked(&self.counts).clone()
    }

    fn count(&self, what: &'static str) {
        *locked(&self.counts).entry(what).or_default() += 1;
    }

    /// The weather for the next request about `subject`.
    fn weather(&self, subject: &str) -> Fault {
        let nth = {
            let mut asked = locked(&self.asked);
            let nth = asked.entry(subject.to_owned()).or_default();
            *nth += 1;
            *nth
        };
        Fault::of(self.seed, subject, nth)
    }
}

/// A lock whose holder cannot have left anything half done.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(
    State(internet): State<Arc<Internet>>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let key = headers.get("Idempotency-Key").and_then(|key| key.to_str().ok()).unwrap_or_default();
    let host = uri.host().unwrap_or_default();
    let weather = internet.weather(&format!("{uri} {key} {}", model::subject(&body)));
    internet.count("requests");
    match weather {
        Fault::None => {}
        Fault::Slow(delay) => sleep(delay).await,
        Fault::TooMany => {
            internet.count("429 with Retry-After");
            return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "1")], "slow down").into_response();
        }
        Fault::Broken => {
            internet.count("500");
            return (StatusCode::INTERNAL_SERVER_ERROR, "something broke").into_response();
        }
        Fault::ReplyLost => internet.count("reply lost"),
    }
    let response = match (method, host, uri.path()) {
        (Method::POST, "model.example", "/v1/chat/completions") => model::complete(internet.seed, &body),
        (Method::POST, "mail.example", "/v3/mail/send") => internet.post.send(key, &body),
        (Method::GET, "news.example", "/search") => {
            companies::news(internet.seed, query.get("q").map_or("", String::as_str))
        }
        (Method::GET, website, path) => companies::page(internet.seed, website, path),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    if matches!(weather, Fault::ReplyLost) {
        // What was asked for is done; only the answer comes after the client has given up.
        sleep(PATIENCE * 2).await;
    }
    response
}
