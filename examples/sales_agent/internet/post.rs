//! A mail service: takes mails, honours idempotency keys, and tells a webhook who clicked.

use std::{sync::Mutex, time::Duration};

use axum::{http::StatusCode, response::IntoResponse, response::Response};
use reqwest::Client;
use serde::Deserialize;
use serde_json::json;
use tokio::time::sleep;

use super::locked;
use crate::dice::Dice;

/// Leads who click in a mail, of a hundred.
const CLICKS: u64 = 35;

/// Attempts to reach the webhook, a second apart.
const WEBHOOK_ATTEMPTS: u32 = 5;

/// One mail that was delivered, and how often it was asked for with the same key.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) key: String,
    pub(crate) lead: i64,
    pub(crate) subject: String,
    pub(crate) requests: u32,
}

pub(super) struct PostOffice {
    seed: u64,
    webhook: String,
    http: Client,
    delivered: Mutex<Vec<Delivery>>,
}

#[derive(Deserialize)]
struct Message {
    personalizations: Vec<Personalization>,
    subject: String,
}

#[derive(Deserialize)]
struct Personalization {
    custom_args: Arguments,
}

#[derive(Deserialize)]
struct Arguments {
    lead: String,
}

impl PostOffice {
    pub(super) fn new(seed: u64, webhook: String, http: Client) -> Self {
        Self { seed, webhook, http, delivered: Mutex::default() }
    }

    pub(super) fn deliveries(&self) -> Vec<Delivery> {
        locked(&self.delivered).clone()
    }

    /// Takes a mail. A key that it has seen before gets the answer of the first time.
    pub(super) fn send(&self, key: &str, body: &[u8]) -> Response {
        let Some((lead, subject)) = read(body) else {
            return (StatusCode::BAD_REQUEST, "the message is incomplete").into_response();
        };
        let (number, new) = self.deliver(key, lead, subject);
        if new {
            self.maybe_click(lead, number);
        }
        (StatusCode::ACCEPTED, [("X-Message-Id", format!("tern-{number}"))]).into_response()
    }

    fn deliver(&self, key: &str, lead: i64, subject: String) -> (usize, bool) {
        let mut delivered = locked(&self.delivered);
        // Without a key every request is a mail of its own, as at any mail service.
        match delivered.iter().position(|delivery| !key.is_empty() && delivery.key == key) {
            Some(at) => {
                delivered[at].requests += 1;
                (at + 1, false)
            }
            None => {
                delivered.push(Delivery { key: key.to_owned(), lead, subject, requests: 1 });
                (delivered.len(), true)
            }
        }
    }

    fn maybe_click(&self, lead: i64, number: usize) {
        let mut dice = Dice::new(self.seed, &format!("click {lead}"));
        if !dice.percent(CLICKS) {
            return;
        }
        let delay = Duration::from_millis(dice.between(300, 1_500));
        let events = json!([{ "event": "click", "sg_message_id": format!("tern-{number}"), "lead": lead.to_string() }]);
        let request = self.http.post(&self.webhook).json(&events);
        tokio::spawn(async move {
            sleep(delay).await;
            for _ in 0..WEBHOOK_ATTEMPTS {
                let attempt = request.try_clone().expect("a JSON request can be cloned");
                if attempt.send().await.is_ok_and(|response| response.status().is_success()) {
                    return;
                }
                sleep(Duration::from_secs(1)).await;
            }
            tracing::warn!(lead, "the webhook did not take a click");
        });
    }
}

fn read(body: &[u8]) -> Option<(i64, String)> {
    let message: Message = serde_json::from_slice(body).ok()?;
    let lead = message.personalizations.first()?.custom_args.lead.parse().ok()?;
    Some((lead, message.subject))
}
