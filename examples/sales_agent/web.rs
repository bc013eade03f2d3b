//! The web application: requests come in here, and whatever they start or send commits with what
//! they write.
//!
//! How pages look is in `pages`.

use anyhow::Result;
use axum::{
    Form, Json, Router,
    extract::{Multipart, Path, Query, Request, State},
    http::{HeaderMap, Method, StatusCode, header::ACCEPT},
    middleware::{self, Next},
    response::{Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use durable::Durable;
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};

use crate::{
    agent::{DECISION, Decision, sales_agent, workflow_id},
    leads::{self, Mail, NewLead},
    pages,
    problem::Problem,
    upload, views,
};

#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pool: PgPool,
    pub(crate) durable: Durable,
}

pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/", get(list_leads))
        .route("/leads", post(add_lead))
        .route("/leads/csv", get(upload_form).post(add_leads))
        .route("/leads/{id}", get(show_lead))
        .route("/drafts/{id}", post(decide_draft))
        .route("/webhooks/mail", post(mail_events))
        .layer(middleware::from_fn(refuse_other_sites))
        .with_state(app)
}

/// One lead as JSON.
async fn add_lead(State(app): State<App>, Json(lead): Json<NewLead>) -> Result<Response, Problem> {
    if let Some(problem) = lead.problem() {
        return Err(Problem::unacceptable(problem));
    }
    let mut tx = app.pool.begin().await?;
    let ids = leads::insert(&mut tx, &[lead]).await?;
    for &id in &ids {
        app.durable.start(sales_agent(id)).id(workflow_id(id)).in_tx(&mut tx).await?;
    }
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(json!({ "leads": ids }))).into_response())
}

/// Many leads as a CSV file: all of them and their workflows in one transaction, or none.
async fn add_leads(State(app): State<App>, headers: HeaderMap, form: Multipart) -> Result<Response, Problem> {
    let leads = match upload::parse(&file_of(form).await?) {
        Ok(leads) => leads,
        Err(complaints) => return Ok(complain(&headers, &complaints)),
    };
    let mut tx = app.pool.begin().await?;
    let ids = leads::insert(&mut tx, &leads).await?;
    let starts = ids.iter().map(|&id| (workflow_id(id), sales_agent(id)));
    app.durable.start_many(starts).in_tx(&mut tx).await?;
    tx.commit().await?;
    Ok(Redirect::to("/").into_response())
}

async fn file_of(mut form: Multipart) -> Result<Vec<u8>, Problem> {
    while let Some(field) = form.next_field().await.map_err(|error| Problem::unacceptable(error.body_text()))? {
        if field.name() == Some("file") {
            let bytes = field.bytes().await.map_err(|error| Problem::unacceptable(error.body_text()))?;
            return Ok(bytes.to_vec());
        }
    }
    Err(Problem::unacceptable("the form has no field \"file\""))
}

/// What is wrong with each line: a page for a browser, plain lines for everybody else.
fn complain(headers: &HeaderMap, complaints: &[upload::Complaint]) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("text/html") {
        return (StatusCode::UNPROCESSABLE_ENTITY, Html(pages::upload(complaints))).into_response();
    }
    let lines: String = complaints.iter().map(|complaint| format!("{complaint}\n")).collect();
    (StatusCode::UNPROCESSABLE_ENTITY, lines + "nothing of this file was stored\n").into_response()
}

#[derive(Deserialize)]
struct DecisionForm {
    decision: String,
    subject: String,
    body: String,
}

impl DecisionForm {
    fn read(self) -> Result<Decision, Problem> {
        match self.decision.as_str() {
            "approve" => Ok(Decision::Approve),
            "reject" => Ok(Decision::Reject),
            "edit" if self.subject.trim().is_empty() || self.body.trim().is_empty() => {
                Err(Problem::unacceptable("a mail needs a subject and a text"))
            }
            // Browsers send line ends as CR LF.
            "edit" => Ok(Decision::Edit(Mail { subject: self.subject, body: self.body.replace("\r\n", "\n") })),
            other => Err(Problem::unacceptable(format!("\"{other}\" is not a decision"))),
        }
    }
}

/// A person's decision. The workflow hears of it if and only if the draft is marked as decided,
/// and a second click finds it decided.
async fn decide_draft(
    State(app): State<App>,
    Path(draft): Path<i64>,
    Form(form): Form<DecisionForm>,
) -> Result<Redirect, Problem> {
    let decision = form.read()?;
    let mut tx = app.pool.begin().await?;
    let Some(lead) = leads::decide(&mut tx, draft, &decision).await? else {
        return Err(Problem::conflict("this draft is already decided, or there is none"));
    };
    app.durable.send(workflow_id(lead), DECISION, decision).key(format!("draft-{draft}")).in_tx(&mut tx).await?;
    tx.commit().await?;
    Ok(Redirect::to(&format!("/leads/{lead}")))
}

#[derive(Deserialize)]
struct MailEvent {
    event: String,
    lead: String,
}

/// The mail service tells what became of mails.
async fn mail_events(State(app): State<App>, Json(events): Json<Vec<MailEvent>>) -> Result<StatusCode, Problem> {
    let mut conn = app.pool.acquire().await?;
    for MailEvent { event, lead } in events {
        if let ("click" | "open", Ok(lead)) = (event.as_str(), lead.parse()) {
            leads::insert_engagement(&mut conn, lead, &event).await?;
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
struct Filter {
    state: Option<String>,
}

async fn list_leads(State(app): State<App>, Query(filter): Query<Filter>) -> Result<Html<String>, Problem> {
    let conn: &mut PgConnection = &mut *app.pool.acquire().await?;
    let states = views::states(conn).await?;
    let leads = views::list(conn, filter.state.as_deref()).await?;
    Ok(Html(pages::list(&states, &leads, filter.state.as_deref())))
}

async fn show_lead(State(app): State<App>, Path(lead): Path<i64>) -> Result<Html<String>, Problem> {
    let dossier = views::dossier(&mut *app.pool.acquire().await?, lead, &workflow_id(lead)).await?;
    let dossier = dossier.ok_or_else(|| Problem::not_found("there is no such lead"))?;
    Ok(Html(pages::lead(&dossier)))
}

async fn upload_form() -> Html<String> {
    Html(pages::upload(&[]))
}

/// A page of another site must not approve mails through the browser of somebody who is in here.
async fn refuse_other_sites(request: Request, next: Next) -> Result<Response, Problem> {
    let from = request.headers().get("Sec-Fetch-Site").map(|site| site.as_bytes());
    match (request.method(), from) {
        (&Method::POST, Some(site)) if site != b"same-origin" && site != b"none" => {
            Err(Problem::forbidden("forms of other sites are not taken"))
        }
        _ => Ok(next.run(request).await),
    }
}
