//! How the pages look: HTML made of strings, with everything that comes from outside escaped.

use chrono::{DateTime, Utc};

use crate::{
    upload::Complaint,
    views::{Dossier, Draft, Overview},
};

const STYLE: &str = include_str!("style.css");

/// Everything that is shown goes through here, unless this file wrote it.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn page(title: &str, head: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{title} · Sales agent</title>{head}<style>{STYLE}</style>\
         <header><a class=\"home\" href=\"/\">Sales agent</a><nav><a href=\"/\">Leads</a><a href=\"/leads/csv\">Upload</a></nav></header>\
         <main><h1>{title}</h1>{body}</main></html>",
        title = escape(title),
    )
}

fn badge(state: &str) -> String {
    format!("<span class=\"badge {}\">{}</span>", escape(&state.replace(' ', "-")), escape(state))
}

fn time(at: DateTime<Utc>) -> String {
    format!("<time datetime=\"{}\">{}</time>", at.to_rfc3339(), at.format("%-d %b, %H:%M:%S"))
}

/// The list of leads, which keeps itself fresh.
pub(crate) fn list(states: &[(String, i64)], leads: &[Overview], chosen: Option<&str>) -> String {
    let total: i64 = states.iter().map(|(_, count)| count).sum();
    let mut filters = filter("all", "/", total, chosen.is_none());
    for (state, count) in states {
        let link = format!("/?state={}", state.replace(' ', "+"));
        filters.push_str(&filter(state, &link, *count, chosen == Some(state.as_str())));
    }
    let rows: String = leads.iter().map(row).collect();
    let table = match rows.as_str() {
        "" => "<p class=\"empty\">No leads here. <a href=\"/leads/csv\">Upload some</a>.</p>".to_owned(),
        _ => format!("<table><tr><th>Company<th>Contact<th>State<th class=\"n\">Mails<th>Received</tr>{rows}</table>"),
    };
    let refresh = "<meta http-equiv=\"refresh\" content=\"3\">";
    page("Leads", refresh, &format!("<p class=\"filters\">{filters}</p>{table}"))
}

fn filter(name: &str, link: &str, count: i64, chosen: bool) -> String {
    let class = if chosen { " class=\"chosen\"" } else { "" };
    format!("<a{class} href=\"{}\">{} <b>{count}</b></a>", escape(link), escape(name))
}

fn row(lead: &Overview) -> String {
    format!(
        "<tr><td><a href=\"/leads/{}\">{}</a><td>{}<td>{}<td class=\"n\">{}<td>{}</tr>",
        lead.id,
        escape(&lead.company),
        escape(&lead.contact),
        badge(&lead.state),
        lead.mails,
        time(lead.received_at),
    )
}

/// One lead: who it is, the draft and what to do with it, and what was done so far.
pub(crate) fn lead(dossier: &Dossier) -> String {
    let Dossier { overview, email, website, note, draft, mails, journal } = dossier;
    let about = format!(
        "<p>{} {} · {} · {}</p><p class=\"note\">{}</p>",
        badge(&overview.state),
        escape(&overview.contact),
        escape(email),
        escape(website),
        escape(note),
    );
    let draft = draft.as_ref().map_or_else(
        || "<section><h2>Draft</h2><p class=\"empty\">Not written yet.</p></section>".to_owned(),
        draft_section,
    );
    let mails: String =
        mails.iter().map(|(subject, at)| format!("<tr><td>{}<td>{}</tr>", escape(subject), time(*at))).collect();
    let starts: String = journal
        .iter()
        .map(|start| {
            let (step, at) = (escape(&start.step), time(start.at));
            format!("<tr><td>{step}<td class=\"n\">{}<td class=\"n\">{}<td>{at}</tr>", start.attempt, start.worker)
        })
        .collect();
    let mails = match mails.as_str() {
        "" => "<p class=\"empty\">None yet.</p>".to_owned(),
        _ => format!("<table><tr><th>Subject<th>Sent</tr>{mails}</table>"),
    };
    let history = format!(
        "<section><h2>Mails</h2>{mails}</section><section><h2>Steps begun</h2><table><tr><th>Step<th class=\"n\">Attempt\
         <th class=\"n\">Worker<th>At</tr>{starts}</table></section>"
    );
    page(&overview.company, "", &(about + &draft + &history))
}

fn draft_section(draft: &Draft) -> String {
    let (subject, body) = (escape(&draft.mail.subject), escape(&draft.mail.body));
    match &draft.decision {
        Some(decision) => {
            format!("<section><h2>Draft, {}</h2><p><b>{subject}</b></p><pre>{body}</pre></section>", escape(decision))
        }
        None => format!(
            "<section><h2>Draft, waiting for you</h2><form method=\"post\" action=\"/drafts/{}\">\
             <label>Subject<input name=\"subject\" value=\"{subject}\" required></label>\
             <label>Mail<textarea name=\"body\" rows=\"12\" required>\n{body}</textarea></label>\
             <p class=\"buttons\"><button class=\"good\" name=\"decision\" value=\"approve\">Send as the agent wrote it</button>\
             <button name=\"decision\" value=\"edit\">Send with my changes</button>\
             <button class=\"bad\" name=\"decision\" value=\"reject\" formnovalidate>Reject</button></p></form></section>",
            draft.id
        ),
    }
}

/// The upload form, with what was wrong with the last file.
pub(crate) fn upload(complaints: &[Complaint]) -> String {
    let lines: String =
        complaints.iter().map(|complaint| format!("<li>{}</li>", escape(&complaint.to_string()))).collect();
    let answer = match lines.as_str() {
        "" => String::new(),
        _ => format!("<div class=\"problem\"><p>Nothing of this file was stored:</p><ul>{lines}</ul></div>"),
    };
    let form = "<form method=\"post\" action=\"/leads/csv\" enctype=\"multipart/form-data\">\
                <p>A CSV file with the columns <code>company, contact, email, website</code> and, if you like, <code>note</code>.</p>\
                <input type=\"file\" name=\"file\" accept=\".csv,text/csv\" required>\
                <p class=\"buttons\"><button class=\"good\">Upload</button></p></form>";
    page("Upload leads", "", &(answer + form))
}

pub(crate) fn problem(says: &str) -> String {
    page("That did not work", "", &format!("<div class=\"problem\"><p>{}</p></div>", escape(says)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_cannot_become_markup() {
        assert_eq!(escape("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
        let complaint = Complaint { line: 2, says: "<script>".to_owned() };
        assert!(!upload(&[complaint]).contains("<script>"));
    }
}
