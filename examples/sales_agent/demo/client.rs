//! What a browser and a script do with the web application, over HTTP.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Client, StatusCode, header::CONTENT_TYPE};
use serde_json::json;

use crate::{
    http::{self, checked},
    leads::Mail,
};

const TIMEOUT: Duration = Duration::from_secs(10);
const PAGE_MAX: usize = 1024 * 1024;
const BOUNDARY: &str = "a-line-that-is-in-no-file-of-leads";

pub(super) struct Visitor {
    http: Client,
    address: String,
}

impl Visitor {
    pub(super) fn new(address: String) -> Result<Self> {
        Ok(Self { http: http::local(TIMEOUT)?, address })
    }

    /// Uploads a file of leads. `Some` says what was wrong with it.
    pub(super) async fn upload(&self, csv: &str) -> Result<Option<String>> {
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"leads.csv\"\r\nContent-Type: text/csv";
        let request = self
            .http
            .post(format!("{}/leads/csv", self.address))
            .header(CONTENT_TYPE, format!("multipart/form-data; boundary={BOUNDARY}"))
            .body(format!("--{BOUNDARY}\r\n{head}\r\n\r\n{csv}\r\n--{BOUNDARY}--\r\n"));
        let response = request.send().await?;
        if response.status() == StatusCode::UNPROCESSABLE_ENTITY {
            return Ok(Some(http::text(response, PAGE_MAX).await?));
        }
        checked(response)?;
        Ok(None)
    }

    /// Adds one lead as JSON.
    pub(super) async fn add_lead(&self) -> Result<()> {
        let lead = json!({
            "company": "Late Swallow Tours", "contact": "Ada <i>Finch</i>", "email": "ada@late-swallow.example",
            "website": "late-swallow.example", "note": "Wrote to us through the form",
        });
        checked(self.http.post(format!("{}/leads", self.address)).json(&lead).send().await?)?;
        Ok(())
    }

    /// The leads whose drafts wait for a decision, as the list shows them.
    pub(super) async fn waiting(&self) -> Result<Vec<i64>> {
        let page = self.page("/?state=waiting").await?;
        page.split("href=\"/leads/")
            .skip(1)
            .filter_map(|link| link.split('"').next())
            .filter(|id| *id != "csv")
            .map(number)
            .collect()
    }

    /// The draft that the page of a lead asks about, if it still asks.
    pub(super) async fn draft_of(&self, lead: i64) -> Result<Option<i64>> {
        let page = self.page(&format!("/leads/{lead}")).await?;
        let form = page.split_once("action=\"/drafts/").and_then(|(_, rest)| rest.split('"').next());
        form.map(number).transpose()
    }

    /// Presses a button of the form. False if the draft was already decided.
    pub(super) async fn press(&self, draft: i64, button: &str, mail: &Mail) -> Result<bool> {
        let fields = [("decision", button), ("subject", &mail.subject), ("body", &mail.body)];
        let response = self.http.post(format!("{}/drafts/{draft}", self.address)).form(&fields).send().await?;
        if response.status() == StatusCode::CONFLICT {
            return Ok(false);
        }
        checked(response)?;
        Ok(true)
    }

    async fn page(&self, path: &str) -> Result<String> {
        let response = self.http.get(format!("{}{path}", self.address)).send().await?;
        if response.status().is_server_error() {
            bail!("{path} answered {}", response.status());
        }
        http::text(checked(response)?, PAGE_MAX).await
    }
}

fn number(text: &str) -> Result<i64> {
    text.parse().with_context(|| format!("{text} is not a number"))
}
