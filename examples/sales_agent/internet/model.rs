//! A chat-completions endpoint that knows one trick: writing a first mail from notes.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use crate::dice::Dice;

const OPENINGS: [&str; 3] = [
    "I read your site this morning and liked what I found.",
    "A customer of ours mentioned you, so I had a look.",
    "I will keep this short, because I know how your mornings look.",
];

const OFFERS: [&str; 3] = [
    "Tern plans routes and shifts together, so nobody has to redo the week when somebody is ill.",
    "Our customers get about four hours a week back that went into spreadsheets before.",
    "Tern does the planning that usually lives in one person's head, and shows it to everybody.",
];

#[derive(Deserialize)]
struct Request {
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// What a request is about: the company in its notes, for a request that is one to a model.
pub(super) fn subject(body: &[u8]) -> String {
    let Ok(request) = serde_json::from_slice::<Request>(body) else {
        return String::new();
    };
    line(notes(&request), "Company: ").to_owned()
}

pub(super) fn complete(seed: u64, body: &[u8]) -> Response {
    let Ok(request) = serde_json::from_slice::<Request>(body) else {
        return (StatusCode::BAD_REQUEST, "messages are missing").into_response();
    };
    let content = write_mail(seed, notes(&request));
    let message = json!({ "role": "assistant", "content": content });
    let choice = json!({ "index": 0, "finish_reason": "stop", "message": message });
    Json(json!({ "object": "chat.completion", "model": "little-parrot", "choices": [choice] })).into_response()
}

fn notes(request: &Request) -> &str {
    request.messages.iter().rfind(|message| message.role == "user").map_or("", |message| &message.content)
}

fn write_mail(seed: u64, notes: &str) -> String {
    let company = line(notes, "Company: ");
    let mut dice = Dice::new(seed, company);
    let (opening, offer) = (dice.one_of(&OPENINGS), dice.one_of(&OFFERS));
    let contact = line(notes, "Contact: ");
    let fact =
        fact_about(company, notes).map(|fact| format!(" I also saw that {fact}: congratulations.")).unwrap_or_default();
    let question = "Would a quarter of an hour next week suit you?";
    format!(
        "Subject: Planning at {company}\n\nDear {contact},\n\n{opening}{fact}\n\n{offer} {question}\n\n\
         Best wishes\nthe people at Tern"
    )
}

/// The newest headline about a company in its notes: "3 September: Acme opens a shop".
fn fact_about<'t>(company: &str, notes: &'t str) -> Option<&'t str> {
    notes
        .lines()
        .rev()
        .filter_map(|line| line.split_once(": "))
        .find(|(date, headline)| date.ends_with("September") && headline.starts_with(company))
        .map(|(_, headline)| headline)
}

/// The rest of the first line that begins with `label`.
fn line<'t>(text: &'t str, label: &str) -> &'t str {
    text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default()
}
