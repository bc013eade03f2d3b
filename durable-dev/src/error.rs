//! The one error of this crate: each kind names the thing that failed and, where there is one, the fix.

use std::path::{Path, PathBuf};
use std::{fmt, io};

/// Why there is no database.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// No server is given, runs, is installed, or may be fetched. `fix` holds commands for this operating system.
    NoServer {
        /// What was looked at, in order, and what was found.
        looked: Vec<String>,
        /// Commands to copy, any one of which helps.
        fix: String,
    },
    /// A setting or an argument that cannot be used.
    Setting {
        /// Which one.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server asks for a password or for TLS, and `psql`, which could answer, is not installed.
    Password {
        /// The server, without its secrets.
        server: String,
    },
    /// The server answered a statement or a connection with an error.
    Refused {
        /// What was attempted.
        act: String,
        /// The five characters of SQLSTATE.
        code: String,
        /// The server's message.
        message: String,
    },
    /// A server did not come up. `log` is the end of what it wrote.
    Start {
        /// The data directory.
        data: PathBuf,
        /// The end of the server's log.
        log: String,
    },
    /// A program that was needed failed.
    Program {
        /// What it was to do.
        act: String,
        /// What it wrote.
        output: String,
    },
    /// A file, a directory or a connection failed.
    Io {
        /// What was attempted.
        act: String,
        /// The reason.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn io(act: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let act = act.into();
        move |source| Error::Io { act, source }
    }

    pub(crate) fn path(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |source| Error::Io { act: format!("{act} {}", path.display()), source }
    }

    pub(crate) fn setting(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Setting { what: what.into(), why: why.into() }
    }

    /// SQLSTATE, when a server said no.
    pub fn code(&self) -> Option<&str> {
        if let Error::Refused { code, .. } = self { Some(code) } else { None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoServer { looked, fix } => {
                writeln!(f, "no PostgreSQL to use")?;
                for step in looked {
                    writeln!(f, "  {step}")?;
                }
                write!(f, "any one of these helps:\n{fix}")
            }
            Error::Setting { what, why } => write!(f, "cannot use {what}: {why}"),
            Error::Password { server } => write!(
                f,
                "{server} asks for a password or TLS, which needs `psql`: install the PostgreSQL client, \
                 use a server that trusts this connection, or unset DATABASE_URL to get a private cluster"
            ),
            Error::Refused { act, code, message } => {
                write!(f, "could not {act}: {message} (SQLSTATE {code})")
            }
            Error::Start { data, log } => {
                write!(f, "PostgreSQL in {} did not start; the end of its log:\n{log}", data.display())
            }
            Error::Program { act, output } => write!(f, "could not {act}: {}", output.trim()),
            Error::Io { act, source } => write!(f, "could not {act}: {source}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Error::Io { source, .. } = self { Some(source) } else { None }
    }
}
