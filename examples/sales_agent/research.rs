//! Reading about a company: its own pages and the news.

use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Client, Url};
use serde::{Deserialize, Serialize};

use crate::{
    http::{self, checked},
    leads::Lead,
};

/// Largest page that is read.
const PAGE_MAX: usize = 512 * 1024;

/// How much of a source goes into the history and to the model, in characters.
const FINDING_MAX: usize = 1_500;

/// A place to read about a company.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Source {
    Page { website: String, path: String },
    News { company: String },
}

impl Source {
    /// Where to read about a lead.
    pub(crate) fn of(lead: &Lead) -> Vec<Source> {
        let page = |path: &str| Source::Page { website: lead.website.clone(), path: path.to_owned() };
        vec![page("/"), page("/about"), Source::News { company: lead.company.clone() }]
    }
}

/// What one source says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) from: String,
    pub(crate) text: String,
}

#[derive(Deserialize)]
struct NewsItem {
    date: String,
    headline: String,
}

/// Reads sources over HTTP.
pub(crate) struct Reader {
    http: Client,
}

impl Reader {
    pub(crate) fn new(internet: &str, timeout: Duration) -> Result<Self> {
        Ok(Self { http: http::inside(internet, timeout)? })
    }

    pub(crate) async fn read(&self, source: &Source) -> Result<Finding> {
        match source {
            Source::Page { website, path } => self.page(&format!("http://{website}{path}")).await,
            Source::News { company } => self.news(company).await,
        }
    }

    async fn page(&self, url: &str) -> Result<Finding> {
        let html = self.get(url.parse()?).await?;
        Ok(Finding { from: url.to_owned(), text: shortened(&text_of(&html)) })
    }

    async fn news(&self, company: &str) -> Result<Finding> {
        let url = Url::parse_with_params("http://news.example/search", [("q", company)])?;
        let items: Vec<NewsItem> = serde_json::from_str(&self.get(url).await?).context("the news are not JSON")?;
        let lines: Vec<String> = items.iter().map(|item| format!("{}: {}", item.date, item.headline)).collect();
        Ok(Finding { from: "recent news".to_owned(), text: shortened(&lines.join("\n")) })
    }

    async fn get(&self, url: Url) -> Result<String> {
        let response = self.http.get(url.clone()).send().await.with_context(|| format!("could not read {url}"))?;
        http::text(checked(response)?, PAGE_MAX).await
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(FINDING_MAX).collect()
}

/// The words of an HTML page: no tags, scripts, styles or title, single spaces.
fn text_of(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some(open) = rest.find('<') {
        text.push_str(&rest[..open]);
        text.push(' ');
        rest = after_element(&rest[open..]);
    }
    text.push_str(rest);
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What follows the tag that `html` begins with, or the whole element where it holds no prose.
fn after_element(html: &str) -> &str {
    for (tag, end) in [("<script", "</script>"), ("<style", "</style>"), ("<title", "</title>"), ("<!--", "-->")] {
        if html.starts_with(tag) {
            return html.find(end).map_or("", |at| &html[at + end.len()..]);
        }
    }
    html.find('>').map_or("", |at| &html[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_words_of_a_page_remain() {
        let html = "<!doctype html><title>Chips</title><style>p { x: 1 }</style><p>Fish &amp;\n chips</p><script>a < b</script> daily<";
        assert_eq!(text_of(html), "Fish & chips daily");
    }
}
