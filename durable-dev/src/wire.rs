//! The little of PostgreSQL's protocol that administration needs: connect with trust, send a statement, read rows.
//!
//! Passwords and TLS are not spoken here, `psql` does that. Applications use a real driver.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::url::{Host, Target};

/// A row in text; NULL is `None`.
pub(crate) type Row = Vec<Option<String>>;

/// Why a statement or a connection failed.
#[derive(Debug)]
pub(crate) enum WireError {
    Io(io::Error),
    /// The server's ErrorResponse.
    Refused {
        code: String,
        message: String,
    },
    /// The server wants a password.
    Password,
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> WireError {
        WireError::Io(error)
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    /// As the server announced it, for example `15.18 (Debian 15.18-1)`.
    pub(crate) server_version: String,
}

/// Larger than any answer to a statement of ours; a peer that claims more does not speak this protocol.
const MESSAGE_BYTES_MAX: usize = 1 << 24;

const PROTOCOL: i32 = 3 << 16;

impl Connection {
    /// Connects; every single read and write after that takes at most `patience`.
    pub(crate) fn open(target: &Target, patience: Duration) -> Result<Connection, WireError> {
        let stream = connect(target, patience)?;
        let mut connection = Connection { stream, server_version: String::new() };
        let mut startup = PROTOCOL.to_be_bytes().to_vec();
        let pairs =
            [("user", target.user.as_str()), ("database", &target.database), ("application_name", "durable-dev")];
        for (key, value) in pairs {
            push_text(&mut startup, key);
            push_text(&mut startup, value);
        }
        startup.push(0);
        connection.stream.write_all(&length_of(&startup))?;
        connection.stream.write_all(&startup)?;
        connection.greeting()?;
        Ok(connection)
    }

    fn greeting(&mut self) -> Result<(), WireError> {
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'R' if body.starts_with(&0i32.to_be_bytes()) => {}
                b'R' => return Err(WireError::Password),
                b'S' => {
                    let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
                    if texts.next().is_some_and(|name| name == "server_version") {
                        self.server_version = texts.next().unwrap_or_default().into_owned();
                    }
                }
                b'E' => return Err(refused(&body)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends `sql`, one statement or several, and returns the rows of all of them. Several statements are one
    /// transaction unless they say otherwise.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<Row>, WireError> {
        let mut body = Vec::with_capacity(sql.len() + 1);
        push_text(&mut body, sql);
        let mut message = vec![b'Q'];
        message.extend(length_of(&body));
        message.extend(body);
        self.stream.write_all(&message)?;
        let mut rows = Vec::new();
        let mut failure = None;
        loop {
            let (kind, body) = self.message()?;
            match kind {
                b'D' => rows.push(row(&body)?),
                b'E' => failure = Some(refused(&body)),
                // COPY FROM STDIN: there is nothing to copy, and the server would wait for ever.
                b'G' => self.stream.write_all(&[b'f', 0, 0, 0, 5, 0])?,
                b'Z' => return failure.map_or(Ok(rows), Err),
                _ => {}
            }
        }
    }

    fn message(&mut self) -> Result<(u8, Vec<u8>), WireError> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head)?;
        let [kind, length @ ..] = head;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        if !(4..=MESSAGE_BYTES_MAX).contains(&length) {
            return Err(garbled());
        }
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Terminate; a server that is gone already does not mind.
        let _ = self.stream.write_all(&[b'X', 0, 0, 0, 4]);
    }
}

fn connect(target: &Target, patience: Duration) -> Result<Box<dyn Stream>, WireError> {
    match &target.host {
        Host::Unix(sockets) => {
            let stream = UnixStream::connect(sockets.join(format!(".s.PGSQL.{}", target.port)))?;
            stream.set_read_timeout(Some(patience))?;
            stream.set_write_timeout(Some(patience))?;
            Ok(Box::new(stream))
        }
        Host::Tcp(host) => {
            let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
            for address in (host.as_str(), target.port).to_socket_addrs()? {
                match TcpStream::connect_timeout(&address, patience) {
                    Ok(stream) => {
                        stream.set_read_timeout(Some(patience))?;
                        stream.set_write_timeout(Some(patience))?;
                        stream.set_nodelay(true)?;
                        return Ok(Box::new(stream));
                    }
                    Err(error) => last = error,
                }
            }
            Err(last.into())
        }
    }
}

fn length_of(body: &[u8]) -> [u8; 4] {
    i32::try_from(body.len() + 4).unwrap_or(i32::MAX).to_be_bytes()
}

fn push_text(buffer: &mut Vec<u8>, text: &str) {
    // A zero byte ends a text in this protocol, so it cannot be inside one.
    buffer.extend(text.bytes().filter(|byte| *byte != 0));
    buffer.push(0);
}

fn garbled() -> WireError {
    io::Error::new(io::ErrorKind::InvalidData, "the answer is not PostgreSQL's protocol").into()
}

fn row(body: &[u8]) -> Result<Row, WireError> {
    let (_count, mut rest) = body.split_at_checked(2).ok_or_else(garbled)?;
    let mut columns = Row::new();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        if let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) {
            let (value, after) = after.split_at_checked(length).ok_or_else(garbled)?;
            columns.push(Some(String::from_utf8_lossy(value).into_owned()));
            rest = after;
        } else {
            columns.push(None);
            rest = after;
        }
    }
    Ok(columns)
}

fn refused(body: &[u8]) -> WireError {
    let field = |tag: u8| {
        body.split(|byte| *byte == 0)
            .find(|field| field.first() == Some(&tag))
            .map_or_else(String::new, |field| String::from_utf8_lossy(&field[1..]).into_owned())
    };
    WireError::Refused { code: field(b'C'), message: field(b'M') }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_null_apart_from_empty() {
        let body = [0, 3, 0, 0, 0, 1, b'x', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(row(&body).unwrap(), [Some("x".to_owned()), None, Some(String::new())]);
        assert!(row(&[0, 1, 0, 0, 0, 9, b'x']).is_err());
    }

    #[test]
    fn an_error_response_yields_code_and_message() {
        let WireError::Refused { code, message } = refused(b"SERROR\0C42P04\0Mdatabase exists\0\0") else { panic!() };
        assert_eq!((code.as_str(), message.as_str()), ("42P04", "database exists"));
    }
}
