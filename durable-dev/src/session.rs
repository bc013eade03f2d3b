//! One administrative session, by the protocol or through `psql`, and the quoting that its SQL needs.

use std::time::Duration;

use crate::Error;
use crate::psql::Psql;
use crate::url::Target;
use crate::wire::{Connection, Row, WireError};

/// The longest statement: the script of a template on a slow disk.
const STATEMENT_PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Session {
    link: Link,
    server: String,
}

enum Link {
    Wire(Connection),
    Psql(Psql),
}

impl Session {
    pub(crate) fn open(target: &Target) -> Result<Session, Error> {
        let server = target.server();
        let strict = target.sslmode.as_deref().is_some_and(|mode| mode == "require" || mode.starts_with("verify"));
        let direct = if strict { Err(WireError::Password) } else { Connection::open(target, STATEMENT_PATIENCE) };
        let link = match direct {
            Ok(connection) => Ok(Link::Wire(connection)),
            Err(error) if wants_more(&error) => match Psql::open(target) {
                Ok(Some(psql)) => Ok(Link::Psql(psql)),
                // No psql here.
                Ok(None) => Err(error),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        let link = link.map_err(|error| explain(error, format!("connect to {server}"), &server))?;
        Ok(Session { link, server })
    }

    /// Sends one statement or several. `act` names it in an error: "make the database x".
    pub(crate) fn query(&mut self, act: &str, sql: &str) -> Result<Vec<Row>, Error> {
        let answer = match &mut self.link {
            Link::Wire(connection) => connection.query(sql),
            Link::Psql(psql) => psql.query(sql),
        };
        answer.map_err(|error| explain(error, act.to_owned(), &self.server))
    }

    /// The first column of the first row.
    pub(crate) fn value(&mut self, act: &str, sql: &str) -> Result<Option<String>, Error> {
        Ok(self.query(act, sql)?.into_iter().next().and_then(|row| row.into_iter().next().flatten()))
    }

    /// PostgreSQL's major version.
    pub(crate) fn major(&mut self) -> Result<u32, Error> {
        let version = match &self.link {
            Link::Wire(connection) => connection.server_version.clone(),
            Link::Psql(_) => self.value("ask for the server's version", "show server_version")?.unwrap_or_default(),
        };
        let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().map_err(|_| Error::setting(self.server.clone(), format!("its version is {version:?}")))
    }
}

fn wants_more(error: &WireError) -> bool {
    match error {
        WireError::Password => true,
        // How a server that insists on TLS turns us away.
        WireError::Refused { code, .. } => code == "28000",
        WireError::Io(_) => false,
    }
}

fn explain(error: WireError, act: String, server: &str) -> Error {
    match error {
        WireError::Io(source) => Error::Io { act, source },
        WireError::Refused { code, message } => Error::Refused { act, code, message },
        WireError::Password => Error::Password { server: server.to_owned() },
    }
}

/// Sends SQL to the database of a URL and returns the rows in text, for tests and demos that have no driver at hand.
/// Several statements are one transaction unless they say otherwise.
///
/// # Errors
/// The server cannot be reached or refuses; [`Error::code`] is its SQLSTATE.
///
/// ```no_run
/// let database = durable_dev::Database::dev("shop")?;
/// let rows = durable_dev::sql(database.url(), "select 1, null")?;
/// assert_eq!(rows, [[Some("1".to_owned()), None]]);
/// # Ok::<(), durable_dev::Error>(())
/// ```
pub fn sql(url: &str, statements: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
    Session::open(&Target::parse(url)?)?.query("execute SQL", statements)
}

/// A name in SQL.
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in SQL, whatever `standard_conforming_strings` says.
pub(crate) fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
