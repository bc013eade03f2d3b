//! The language model that writes: a client of any OpenAI-compatible chat-completions endpoint.

use std::{env, time::Duration};

use anyhow::{Context, Result, bail};
use reqwest::Client;
use serde::Deserialize;
use serde_json::json;

use crate::{
    http::{self, checked},
    leads::{Lead, Mail},
    research::Finding,
};

/// How long a real model may think.
const MODEL_TIMEOUT: Duration = Duration::from_secs(60);

/// Largest answer that is read.
const ANSWER_MAX: usize = 256 * 1024;

const INSTRUCTIONS: &str = "You write short, friendly first mails for Tern, a tool that plans routes and shifts for small \
    companies. Use what you are told about the company, invent nothing, at most 120 words, no placeholders. Answer with a \
    first line `Subject: ...`, an empty line, and the mail.";

/// An endpoint with its key.
pub(crate) struct Model {
    http: Client,
    base: String,
    key: Option<String>,
    name: String,
}

#[derive(Deserialize)]
struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl Model {
    /// The model of `OPENAI_API_KEY`, `OPENAI_BASE_URL` and `OPENAI_MODEL`; without a key the one
    /// in the example's own internet.
    pub(crate) fn from_env(internet: &str, timeout: Duration) -> Result<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let Some(key) = set("OPENAI_API_KEY") else {
            let base = "http://model.example/v1".to_owned();
            return Ok(Self {
                http: http::inside(internet, timeout)?,
                base,
                key: None,
                name: "little-parrot".to_owned(),
            });
        };
        let base = set("OPENAI_BASE_URL").unwrap_or_else(|| "https://api.openai.com/v1".to_owned());
        Ok(Self {
            http: Client::builder().timeout(MODEL_TIMEOUT).build()?,
            base: base.trim_end_matches('/').to_owned(),
            key: Some(key),
            name: set("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".to_owned()),
        })
    }

    async fn complete(&self, system: &str, user: &str) -> Result<String> {
        let mut request = self.http.post(format!("{}/chat/completions", self.base)).json(&json!({
            "model": self.name,
            "messages": [{ "role": "system", "content": system }, { "role": "user", "content": user }],
        }));
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = checked(request.send().await.context("could not ask the model")?)?;
        let answer: Completion = serde_json::from_str(&http::text(response, ANSWER_MAX).await?)
            .context("the model's answer is not a completion")?;
        answer.choices.into_iter().next().and_then(|choice| choice.message.content).context("the model gave no answer")
    }
}

/// Has the model write the first mail to a lead.
pub(crate) async fn write_mail(model: &Model, lead: &Lead, findings: &[Finding]) -> Result<Mail> {
    let mut about = format!("Company: {}\nContact: {}\nOur note: {}\n", lead.company, lead.contact, lead.note);
    for finding in findings {
        about.push_str(&format!("\nFrom {}:\n{}\n", finding.from, finding.text));
    }
    parse_mail(&model.complete(INSTRUCTIONS, &about).await?)
}

fn parse_mail(answer: &str) -> Result<Mail> {
    let Some((subject, body)) = answer.trim().strip_prefix("Subject:").and_then(|rest| rest.split_once('\n')) else {
        bail!("the model's answer does not begin with a subject");
    };
    let (subject, body) = (subject.trim().to_owned(), body.trim().to_owned());
    if subject.is_empty() || body.is_empty() {
        bail!("the model's answer has an empty subject or mail");
    }
    Ok(Mail { subject, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_subject_and_a_mail() {
        let mail = parse_mail("Subject: Barges\n\nDear Piet,\nhello.\n").unwrap();
        assert_eq!((mail.subject.as_str(), mail.body.as_str()), ("Barges", "Dear Piet,\nhello."));
        for bad in ["Dear Piet", "Subject: Barges", "Subject:\n\nDear Piet"] {
            assert!(parse_mail(bad).is_err(), "{bad}");
        }
    }
}
