//! The mail service: a client of a SendGrid-like API.
//!
//! It only ever reaches the example's own internet: no mail of this example leaves the machine.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::Client;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    http::{self, checked},
    leads::{Lead, Mail},
};

/// The service has taken a mail.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Receipt {
    pub(crate) message_id: String,
}

pub(crate) struct Mailer {
    http: Client,
}

impl Mailer {
    pub(crate) fn new(internet: &str, timeout: Duration) -> Result<Self> {
        Ok(Self { http: http::inside(internet, timeout)? })
    }

    /// Sends a mail; the service does so once per `idempotency_key`, however often it is asked.
    pub(crate) async fn send(&self, lead: &Lead, mail: &Mail, idempotency_key: &str) -> Result<Receipt> {
        let message = json!({
            "personalizations": [{
                "to": [{ "email": lead.email, "name": lead.contact }],
                "custom_args": { "lead": lead.id.to_string() },
            }],
            "from": { "email": "hello@tern.example", "name": "Tern" },
            "subject": mail.subject,
            "content": [{ "type": "text/plain", "value": mail.body }],
        });
        let request = self.http.post("http://mail.example/v3/mail/send").header("Idempotency-Key", idempotency_key);
        let response = request.json(&message).send().await;
        let response = checked(response.with_context(|| format!("could not send a mail to lead {}", lead.id))?)?;
        let message_id = response.headers().get("X-Message-Id").context("the mail service gave no message id")?;
        Ok(Receipt { message_id: message_id.to_str()?.to_owned() })
    }
}
