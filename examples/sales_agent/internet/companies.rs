//! The web sites of invented companies, and the news about them.

use axum::{
    Json,
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::dice::Dice;

const AIMS: [&str; 6] = [
    "do one thing well and tell our customers the truth about the rest",
    "answer the telephone ourselves",
    "grow slowly and pay on time",
    "repair before we replace",
    "deliver before noon, wherever the road goes",
    "leave every place tidier than we found it",
];

const NEWS: [&str; 6] = [
    "opened a second site after a record spring",
    "won the regional prize for family businesses",
    "brought twelve new drivers on board",
    "moved into a warehouse by the river",
    "made the four-day week work for its crews",
    "turned seventy and gave everybody a day off",
];

/// A page of a company's site. One site in eight has no page about itself.
pub(super) fn page(seed: u64, website: &str, path: &str) -> Response {
    let name = name_of(website);
    let mut dice = Dice::new(seed, website);
    let (aim, people, founded) = (dice.one_of(&AIMS), dice.between(4, 180), dice.between(1951, 2019));
    let prose = match path {
        "/" => format!("<h1>{name}</h1><p>Welcome. Since {founded} we have tried to {aim}.</p>"),
        "/about" if !dice.percent(12) => {
            format!("<h1>About us</h1><p>{name} has {people} people, and most of them are on the road by six.</p>")
        }
        _ => return (StatusCode::NOT_FOUND, Html("<h1>Not found</h1>")).into_response(),
    };
    let style = "<style>body { font: 16px/1.5 sans-serif; margin: 3em }</style>";
    Html(format!("<!doctype html><title>{name}</title>{style}{prose}")).into_response()
}

/// Up to two recent items about a company.
pub(super) fn news(seed: u64, company: &str) -> Response {
    let mut dice = Dice::new(seed, company);
    let mut items: Vec<(u64, String)> =
        (0..dice.between(0, 2)).map(|_| (dice.between(1, 28), format!("{company} {}", dice.one_of(&NEWS)))).collect();
    items.sort();
    items.dedup_by(|one, other| one.1 == other.1);
    let items: Vec<Value> = items
        .iter()
        .map(|(day, headline)| json!({ "date": format!("{day} September"), "headline": headline }))
        .collect();
    Json(items).into_response()
}

/// "salt-marsh.example" is the site of Salt Marsh.
fn name_of(website: &str) -> String {
    let label = website.split('.').next().unwrap_or_default();
    let capitalised = |word: &str| {
        let mut letters = word.chars().filter(char::is_ascii_alphanumeric);
        let first = letters.next()?.to_ascii_uppercase();
        Some(std::iter::once(first).chain(letters).collect::<String>())
    };
    label.split('-').filter_map(capitalised).collect::<Vec<_>>().join(" ")
}
