//! What a request gets when it does not get what it asked for.

use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};

use crate::pages;

/// A status and a sentence for whoever asked.
pub(crate) struct Problem {
    status: StatusCode,
    says: String,
}

impl Problem {
    pub(crate) fn unacceptable(says: impl Into<String>) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, says: says.into() }
    }

    pub(crate) fn conflict(says: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, says: says.into() }
    }

    pub(crate) fn not_found(says: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, says: says.into() }
    }

    pub(crate) fn forbidden(says: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, says: says.into() }
    }
}

/// Whatever goes wrong inside is for the log; outside it is only said that something did.
impl<E: Into<anyhow::Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        tracing::error!("{:#}", error.into());
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, says: "something went wrong; it is in the log".to_owned() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (self.status, Html(pages::problem(&self.says))).into_response()
    }
}
