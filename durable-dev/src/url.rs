//! Connection URLs: taken apart for our own sessions, put together for the caller's driver.

use std::path::{Path, PathBuf};

use crate::Error;

/// The port in the name of a private cluster's socket. Nothing listens on it.
pub(crate) const PRIVATE_PORT: u16 = 5432;
/// The superuser of private clusters.
pub(crate) const PRIVATE_USER: &str = "postgres";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// The directory of the socket.
    Unix(PathBuf),
    Tcp(String),
}

/// Where to connect and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) user: String,
    pub(crate) password: Option<String>,
    pub(crate) database: String,
    pub(crate) sslmode: Option<String>,
}

impl Target {
    /// A database of the private cluster with this socket directory.
    pub(crate) fn private(sockets: &Path, database: &str) -> Target {
        Target {
            host: Host::Unix(sockets.to_owned()),
            port: PRIVATE_PORT,
            user: PRIVATE_USER.to_owned(),
            password: None,
            database: database.to_owned(),
            sslmode: None,
        }
    }

    /// Reads a URL the way drivers do: parts in the query win, `PGHOST` and its kind fill the gaps.
    pub(crate) fn parse(url: &str) -> Result<Target, Error> {
        let env = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let broken = |why: &str| Error::setting("DATABASE_URL", why);
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| broken("it does not start with postgres://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
        // The colon before a port, not one inside the brackets of an IPv6 address.
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, Some(port.to_owned())),
            _ => (place, None),
        };
        let filled = |text: &str| Some(decode(text)).filter(|text| !text.is_empty());
        let (mut host, mut port) = (filled(host.trim_matches(['[', ']'])), port);
        let (mut user, mut password, mut database) = (filled(user), password.map(decode), filled(path));
        let mut sslmode = env("PGSSLMODE");
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = Some(decode(&value.replace('+', " ")));
            match key {
                "host" | "hostaddr" => host = value,
                "port" => port = value,
                "user" => user = value,
                "password" => password = value,
                "dbname" => database = value,
                "sslmode" | "ssl-mode" => sslmode = value,
                _ => {}
            }
        }
        let port = match port.or_else(|| env("PGPORT")) {
            Some(port) => port.parse().map_err(|_| broken("its port is not a number"))?,
            None => PRIVATE_PORT,
        };
        let host = host.or_else(|| env("PGHOST")).unwrap_or_else(|| usual_host(port));
        let user = user.or_else(|| env("PGUSER")).or_else(|| env("USER")).unwrap_or_else(|| PRIVATE_USER.to_owned());
        let database = database.or_else(|| env("PGDATABASE")).unwrap_or_else(|| user.clone());
        let host = if host.starts_with('/') { Host::Unix(host.into()) } else { Host::Tcp(host) };
        Ok(Target { host, port, user, password: password.or_else(|| env("PGPASSWORD")), database, sslmode })
    }

    pub(crate) fn with_database(&self, database: &str) -> Target {
        Target { database: database.to_owned(), ..self.clone() }
    }

    /// The socket's file, for hosts that have one.
    pub(crate) fn socket(sockets: &Path) -> PathBuf {
        sockets.join(format!(".s.PGSQL.{PRIVATE_PORT}"))
    }

    /// The server in words, without secrets.
    pub(crate) fn server(&self) -> String {
        match &self.host {
            Host::Unix(sockets) => format!("the server at {}", sockets.display()),
            Host::Tcp(host) => format!("the server at {host}:{}", self.port),
        }
    }
}

/// Where drivers look when a URL names no host.
fn usual_host(port: u16) -> String {
    ["/run/postgresql", "/var/run/postgresql", "/tmp"]
        .iter()
        .find(|dir| Path::new(dir).join(format!(".s.PGSQL.{port}")).exists())
        .map_or_else(|| "localhost".to_owned(), |dir| (*dir).to_owned())
}

/// The URL of a database of a private cluster. Everything is spelled out, so that a stray `PGPORT` or
/// `PGSSLMODE` in the environment of the driver changes nothing; no TLS saves a round trip on each connection.
pub(crate) fn private(sockets: &Path, database: &str) -> String {
    format!(
        "postgres:///{}?host={}&port={PRIVATE_PORT}&user={PRIVATE_USER}&sslmode=disable",
        encode(database),
        encode(&sockets.to_string_lossy()),
    )
}

/// The same URL for another database of the same server.
pub(crate) fn with_database(url: &str, database: &str) -> String {
    let (head, query) = url.split_once('?').unwrap_or((url, ""));
    let authority_from = head.find("://").map_or(0, |at| at + 3);
    let authority_to = head[authority_from..].find('/').map_or(head.len(), |at| authority_from + at);
    let kept: Vec<&str> = query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("dbname=")).collect();
    let mark = if kept.is_empty() { "" } else { "?" };
    format!("{}/{}{mark}{}", &head[..authority_to], encode(database), kept.join("&"))
}

fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).filter(|_| *first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        if let Some(byte) = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_url_is_read_back_as_it_was_meant() {
        let sockets = Path::new("/var/tmp/a b+c%/ä&");
        let url = private(sockets, "my db");
        let read = Target::parse(&url).unwrap();
        assert_eq!(read.host, Host::Unix(sockets.to_owned()));
        assert_eq!((read.port, read.user.as_str(), read.database.as_str()), (5432, "postgres", "my db"));
    }

    #[test]
    fn urls_of_servers_are_taken_apart() {
        let read = Target::parse("postgresql://me%40work:p%3Aw@db.example:6432/app?sslmode=require").unwrap();
        assert_eq!(read.host, Host::Tcp("db.example".to_owned()));
        assert_eq!((read.port, read.user.as_str(), read.database.as_str()), (6432, "me@work", "app"));
        assert_eq!((read.password.as_deref(), read.sslmode.as_deref()), (Some("p:w"), Some("require")));
        let read = Target::parse("postgres://me@[::1]:7000/app").unwrap();
        assert_eq!((read.host, read.port), (Host::Tcp("::1".to_owned()), 7000));
        assert!(Target::parse("mysql://x/y").is_err());
    }

    #[test]
    fn the_database_of_a_url_can_be_exchanged() {
        for (url, expected) in [
            ("postgres://u:p@h:1/a?sslmode=require", "postgres://u:p@h:1/b?sslmode=require"),
            ("postgres://u@h", "postgres://u@h/b"),
            ("postgres:///a?host=/x&dbname=c", "postgres:///b?host=/x"),
        ] {
            assert_eq!(with_database(url, "b"), expected);
        }
    }
}
