//! A session through `psql`, for servers that ask for a password or for TLS: those it can answer and `wire` cannot.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::system;
use crate::url::{Host, Target};
use crate::wire::{Row, WireError};

/// One `psql` that reads our statements from a pipe. It ends when the pipe closes, so a killed process leaves no
/// session behind.
pub(crate) struct Psql {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

/// Ends the answer to a statement. Long enough not to stand at the start of a row by chance.
const MARK: &str = "durable-dev-end-of-answer-6f1c";
const BETWEEN_COLUMNS: char = '\u{1f}';
const NULL: &str = "\u{1e}";

impl Psql {
    /// None: there is no `psql` here.
    pub(crate) fn open(target: &Target) -> Result<Option<Psql>, WireError> {
        let Some(program) = system::on_path("psql") else {
            return Ok(None);
        };
        let mut command = Command::new(program);
        command.args(["-X", "-q", "-A", "-t", "-w", "-F"]).arg(BETWEEN_COLUMNS.to_string());
        command.args(["-P", &format!("null={NULL}"), "-v", "VERBOSITY=terse", "-v", "ON_ERROR_STOP=0"]);
        let host = match &target.host {
            Host::Unix(sockets) => sockets.clone().into_os_string(),
            Host::Tcp(host) => host.into(),
        };
        // In the environment rather than on the command line, which every user can read.
        command.env("PGHOST", host).env("PGPORT", target.port.to_string()).env("PGUSER", &target.user);
        command.env("PGDATABASE", &target.database).env("PGCONNECT_TIMEOUT", "10").env("PGAPPNAME", "durable-dev");
        if let Some(password) = &target.password {
            command.env("PGPASSWORD", password);
        }
        if let Some(sslmode) = &target.sslmode {
            command.env("PGSSLMODE", sslmode);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both were asked to be pipes")
        };
        let mut psql = Psql { child, stdin: Some(stdin), stdout: BufReader::new(stdout) };
        psql.query("select 1")?;
        // Nobody reads it from here on: errors are asked for by name, and a full pipe would stop psql.
        if let Some(mut stderr) = psql.child.stderr.take() {
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        }
        Ok(Some(psql))
    }

    /// As `wire::Connection::query`, except that statements share no transaction. Those we send through here do not
    /// need one: an unfinished template is thrown away as a whole.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        let Some(stdin) = &mut self.stdin else { unreachable!("taken away by drop only") };
        // A failed statement in the middle is remembered by LAST_ERROR_*, which we clear first.
        let sent = write!(
            stdin,
            "\\set LAST_ERROR_SQLSTATE 00000\n{sql}\n;\n\\echo '\\n{MARK}' :LAST_ERROR_SQLSTATE :LAST_ERROR_MESSAGE\n"
        )
        .and_then(|()| stdin.flush());
        if let Err(error) = sent {
            return Err(self.gone(error));
        }
        let mut rows: Vec<Row> = Vec::new();
        loop {
            let mut line = String::new();
            if self.stdout.read_line(&mut line)? == 0 {
                return Err(self.gone(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let line = line.trim_end_matches('\n');
            if let Some(verdict) = line.strip_prefix(MARK) {
                let (code, message) = verdict.trim_start().split_once(' ').unwrap_or((verdict.trim(), ""));
                if code == "00000" {
                    return Ok(rows);
                }
                return Err(WireError::Refused { code: code.to_owned(), message: message.to_owned() });
            }
            if !line.is_empty() {
                let cells = line.split(BETWEEN_COLUMNS);
                rows.push(cells.map(|cell| (cell != NULL).then(|| cell.to_owned())).collect());
            }
        }
    }

    /// psql ended: what it said on its way out is better than a broken pipe.
    fn gone(&mut self, error: std::io::Error) -> WireError {
        let said = self.child.stderr.take().map(std::io::read_to_string);
        match said {
            Some(Ok(said)) if !said.trim().is_empty() => {
                // Class 08: connection exception. psql itself has no code for it.
                WireError::Refused { code: "08001".to_owned(), message: said.trim().to_owned() }
            }
            _ => WireError::Io(error),
        }
    }
}

impl Drop for Psql {
    fn drop(&mut self) {
        // The end of its input ends psql; waiting for it leaves no zombie.
        self.stdin = None;
        let _ = self.child.wait();
    }
}
