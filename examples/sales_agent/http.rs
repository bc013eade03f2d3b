//! What all clients of the agent share: a client with a time limit, and which answers are worth
//! another attempt.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use chrono::{DateTime, Utc};
use reqwest::{Client, Proxy, Response, StatusCode, header::RETRY_AFTER};

/// Longest wait that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// A client that reaches everything through the example's own internet.
pub(crate) fn inside(internet: &str, timeout: Duration) -> Result<Client> {
    let proxy = Proxy::http(internet).context("the address of the example's internet is not one")?;
    Ok(Client::builder().proxy(proxy).timeout(timeout).build()?)
}

/// A client for addresses on this machine.
pub(crate) fn local(timeout: Duration) -> Result<Client> {
    Ok(Client::builder().no_proxy().timeout(timeout).build()?)
}

/// A good answer, or an error that says whether another attempt makes sense.
pub(crate) fn checked(response: Response) -> Result<Response> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let error = anyhow!("{} answered {status}", response.url());
    match wanted_delay(&response) {
        Some(delay) if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
            Err(durable::retry_after(error, delay).into())
        }
        _ if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) => Err(error),
        // The request itself is wrong: the same request will be wrong again.
        _ if status.is_client_error() => Err(durable::terminal(error).into()),
        _ => Err(error),
    }
}

fn wanted_delay(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    parse_retry_after(value, Utc::now())
}

/// `Retry-After` is a number of seconds or a date.
fn parse_retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let delay = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => (DateTime::parse_from_rfc2822(value).ok()?.to_utc() - now).to_std().unwrap_or_default(),
    };
    Some(delay.min(RETRY_AFTER_MAX))
}

/// The text of an answer of at most `max` bytes: whoever is on the other side does not decide how
/// much memory this takes.
pub(crate) async fn text(mut response: Response, max: usize) -> Result<String> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if bytes.len() + chunk.len() > max {
            bail!("{} is longer than {max} bytes", response.url());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_bounded() {
        let now = DateTime::parse_from_rfc2822("Wed, 21 Oct 2015 07:28:00 GMT").unwrap().to_utc();
        let delay = |value| parse_retry_after(value, now).map(|delay| delay.as_secs());
        assert_eq!(delay("7"), Some(7));
        assert_eq!(delay("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30));
        assert_eq!(delay("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0));
        assert_eq!(delay("999999"), Some(3600));
        assert_eq!(delay("soon"), None);
    }
}
