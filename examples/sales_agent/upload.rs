//! Reading an uploaded CSV file of leads: all of its lines are good, or none of it is taken.

use std::collections::HashMap;

use csv::{ErrorKind, ReaderBuilder, StringRecord, Trim};

use crate::leads::NewLead;

/// Most leads in one upload.
const LEADS_MAX: usize = 10_000;

/// Most complaints that are worth reading at once.
const COMPLAINTS_MAX: usize = 50;

/// What is wrong with one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) line: u64,
    pub(crate) says: String,
}

impl std::fmt::Display for Complaint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "line {}: {}", self.line, self.says)
    }
}

/// The leads of a file, or what is wrong with it, line by line.
pub(crate) fn parse(file: &[u8]) -> Result<Vec<NewLead>, Vec<Complaint>> {
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(file);
    let headers = reader.headers().cloned().map_err(|error| vec![unreadable(&error)])?;
    missing_column(&headers)?;

    let mut leads = Vec::new();
    let mut complaints = Vec::new();
    let mut lines_of = HashMap::new();
    for record in reader.into_records() {
        match read_line(record, &headers, &mut lines_of) {
            Ok(lead) => leads.push(lead),
            Err(complaint) => complaints.push(complaint),
        }
        if complaints.len() == COMPLAINTS_MAX {
            return Err(complaints);
        }
        if leads.len() > LEADS_MAX {
            return Err(vec![Complaint { line: 1, says: format!("more than {LEADS_MAX} leads in one file") }]);
        }
    }
    if leads.is_empty() && complaints.is_empty() {
        complaints.push(Complaint { line: 1, says: "no leads below the header".to_owned() });
    }
    if complaints.is_empty() { Ok(leads) } else { Err(complaints) }
}

fn missing_column(headers: &StringRecord) -> Result<(), Vec<Complaint>> {
    let wanted = ["company", "contact", "email", "website"];
    match wanted.into_iter().find(|column| !headers.iter().any(|header| header == *column)) {
        Some(column) => Err(vec![Complaint { line: 1, says: format!("no column \"{column}\" in the header") }]),
        None => Ok(()),
    }
}

fn read_line(
    record: csv::Result<StringRecord>,
    headers: &StringRecord,
    lines_of: &mut HashMap<String, u64>,
) -> Result<NewLead, Complaint> {
    let record = record.map_err(|error| unreadable(&error))?;
    let line = record.position().map_or(0, csv::Position::line);
    let lead: NewLead = record.deserialize(Some(headers)).map_err(|error| unreadable(&error))?;
    if let Some(says) = lead.problem() {
        return Err(Complaint { line, says });
    }
    match lines_of.insert(lead.email.to_lowercase(), line) {
        Some(first) => Err(Complaint { line, says: format!("{} is already on line {first}", lead.email) }),
        None => Ok(lead),
    }
}

fn unreadable(error: &csv::Error) -> Complaint {
    let line = error.position().map_or(1, csv::Position::line);
    let says = if let ErrorKind::UnequalLengths { expected_len, len, .. } = error.kind() {
        format!("{len} fields instead of {expected_len}")
    } else {
        error.to_string()
    };
    Complaint { line, says }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(file: &str) -> Vec<String> {
        parse(file.as_bytes()).expect_err("the file is bad").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_bad_line_is_named_with_its_reason() {
        let file = "company,contact,email,website,note\n\
                    Acme,Ann,ann@acme.example,acme.example,\n\
                    Acme,,bob@acme.example,acme.example,\n\
                    Acme,Cy,cy,acme.example,\n\
                    Acme,Di\n\
                    Acme,Ed,ANN@acme.example,acme.example,\n";
        assert_eq!(
            complaints(file),
            [
                "line 3: contact is empty",
                "line 4: \"cy\" is not an email address",
                "line 5: 2 fields instead of 5",
                "line 6: ANN@acme.example is already on line 2",
            ]
        );
    }

    #[test]
    fn a_file_without_leads_is_refused() {
        assert_eq!(complaints("company,contact,email,website\n"), ["line 1: no leads below the header"]);
        assert_eq!(complaints("name\nAcme\n"), ["line 1: no column \"company\" in the header"]);
    }

    #[test]
    fn the_list_of_the_demonstration_is_good() {
        assert_eq!(parse(include_bytes!("../leads.csv")).map(|leads| leads.len()), Ok(24));
    }
}
