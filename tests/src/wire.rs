//! A wire between a pool and the test server that counts what passes: who asked what, in how many round trips.
//!
//! It reads only what the client says. A flight is what a client sends before it waits for the server: messages
//! ended by Sync, or one simple query. sqlx sends one flight at a time, so a flight is a round trip.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgPool};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::db::Db;

/// One round trip.
#[derive(Clone, Debug)]
pub struct Flight {
    /// Whether its connection was opened since the wire last forgot, so that it may serve to set it up.
    pub fresh: bool,
    /// The texts of the statements that it executes; none when it only prepares one.
    pub statements: Vec<String>,
    /// Whether it prepares a statement, and whether that was needed.
    pub prepares: Option<Prepares>,
    /// Whether its connection has said that its commits need not wait for the disk.
    pub asynchronous: bool,
}

/// What a connection has of a statement that it prepares.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Prepares {
    /// Nothing yet: once per connection and statement, this is needed.
    First,
    /// The same statement, prepared before: a round trip for nothing.
    Again,
}

/// What of a statement is lost, and its connection with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lost {
    /// The server never carries it out.
    Request,
    /// The server has carried it out, and nobody hears of it.
    Reply,
}

/// The wire. Connections over it end when it is dropped.
pub struct Wire {
    options: PgConnectOptions,
    log: Arc<Log>,
    directory: PathBuf,
    cut: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

#[derive(Default)]
struct Log(Mutex<Heard>);

#[derive(Default)]
struct Heard {
    flights: Vec<Flight>,
    /// What the next statement to be lost holds, and what of it is.
    losing: Option<(String, Lost)>,
    /// Connections opened, and how many of them when the wire last forgot.
    opened: usize,
    known: usize,
}

impl Log {
    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wire {
    /// A wire to a test's database.
    pub fn to(db: &Db) -> Self {
        static WIRES: AtomicUsize = AtomicUsize::new(0);
        let number = WIRES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("durable-wire-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory for the wire's socket");
        let server = (*db.pool.connect_options()).clone();
        let listener = UnixListener::bind(directory.join(socket_name(server.get_port()))).expect("the wire's socket");
        let log = Arc::<Log>::default();
        let (cut, is_cut) = watch::channel(false);
        let accepting = tokio::spawn(accept(listener, Server::of(&server), log.clone(), is_cut));
        let options = server.socket(&directory).disable_statement_logging();
        Self { options, log, directory, cut, accepting }
    }

    /// A pool whose connections go over the wire, and those that durable makes from its options.
    pub fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(5).connect_lazy_with(self.options.clone())
    }

    /// Let nothing pass any more, and tell neither end: what was asked is carried out, and nobody hears of it.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Lose the next statement whose text holds this.
    pub fn lose(&self, part: &str, what: Lost) {
        self.log.heard().losing = Some((part.to_owned(), what));
    }

    /// Forget what has passed so far.
    pub fn forget(&self) {
        let mut heard = self.log.heard();
        heard.flights.clear();
        heard.known = heard.opened;
    }

    /// What has passed, in its order.
    pub fn flights(&self) -> Vec<Flight> {
        self.log.heard().flights.clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        // What cannot be removed is an empty directory among temporary files.
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Wire({} flights)", self.log.heard().flights.len())
    }
}

fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

/// Where the test server listens.
#[derive(Clone)]
enum Server {
    Unix(PathBuf),
    Tcp(String, u16),
}

impl Server {
    fn of(options: &PgConnectOptions) -> Self {
        match options.get_socket() {
            Some(directory) => Self::Unix(directory.join(socket_name(options.get_port()))),
            None if Path::new(options.get_host()).is_absolute() => {
                Self::Unix(Path::new(options.get_host()).join(socket_name(options.get_port())))
            }
            None => Self::Tcp(options.get_host().to_owned(), options.get_port()),
        }
    }
}

async fn accept(listener: UnixListener, server: Server, log: Arc<Log>, cut: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let ear = Ear::new(log.clone());
        let (server, cut) = (server.clone(), cut.clone());
        connections.spawn(async move {
            // An error is the end of the connection, which its client notices.
            drop(match server {
                Server::Unix(path) => match UnixStream::connect(path).await {
                    Ok(server) => join(client, server.into_split(), ear, cut).await,
                    Err(error) => Err(error),
                },
                Server::Tcp(host, port) => match TcpStream::connect((host, port)).await {
                    Ok(server) => join(client, server.into_split(), ear, cut).await,
                    Err(error) => Err(error),
                },
            });
        });
    }
}

/// Pass everything on, both ways, until one end closes, or the wire is cut.
async fn join(
    client: UnixStream,
    (mut from_server, to_server): (impl AsyncRead + Unpin, impl AsyncWrite + Unpin),
    ear: Ear,
    mut cut: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let reply_is_lost = ear.reply_is_lost.clone();
    let cut = async move { cut.wait_for(|cut| *cut).await.is_ok() };
    tokio::select! {
        biased;
        _ = cut => std::future::pending().await,
        ended = listen(BufReader::new(from_client), to_server, ear) => ended,
        ended = answer(&mut from_server, to_client, &reply_is_lost) => ended,
    }
}

/// Pass on what the server says, until one of its replies is to be lost.
async fn answer(
    server: &mut (impl AsyncRead + Unpin),
    mut client: impl AsyncWrite + Unpin,
    is_lost: &AtomicBool,
) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let many = server.read(&mut bytes).await?;
        if many == 0 || is_lost.load(Ordering::Acquire) {
            return Ok(());
        }
        client.write_all(&bytes[..many]).await?;
    }
}

/// Pass on what the client says, message by message. A flight is noted before its last message is passed on,
/// so that whoever has seen its effect finds it.
async fn listen(
    mut client: impl AsyncRead + Unpin,
    mut server: impl AsyncWrite + Unpin,
    mut ear: Ear,
) -> std::io::Result<()> {
    // The first message has no type.
    let startup = body(&mut client).await?;
    server.write_all(&startup).await?;
    loop {
        let kind = client.read_u8().await?;
        let message = body(&mut client).await?;
        if ear.hear(kind, &message[4..]) == Some(Lost::Request) {
            // What it has been told to do is undone at the end of a connection that has not said Sync.
            return Ok(());
        }
        server.write_u8(kind).await?;
        server.write_all(&message).await?;
    }
}

/// The length of a message, which counts itself, and the rest.
async fn body(client: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let length = client.read_u32().await?;
    let mut message = length.to_be_bytes().to_vec();
    message.resize(length as usize, 0);
    client.read_exact(&mut message[4..]).await?;
    Ok(message)
}

/// What one connection has said.
struct Ear {
    log: Arc<Log>,
    number: usize,
    prepared: HashMap<String, String>,
    portals: HashMap<String, String>,
    flight: Flight,
    reply_is_lost: Arc<AtomicBool>,
}

impl Ear {
    fn new(log: Arc<Log>) -> Self {
        let number = {
            let mut heard = log.heard();
            heard.opened += 1;
            heard.opened
        };
        let flight = Flight { fresh: true, statements: Vec::new(), prepares: None, asynchronous: false };
        let (prepared, portals, reply_is_lost) = Default::default();
        Self { log, number, prepared, portals, flight, reply_is_lost }
    }

    /// What is lost with this message, if anything is.
    fn hear(&mut self, kind: u8, message: &[u8]) -> Option<Lost> {
        let mut texts = message.split(|byte| *byte == 0).map(|text| String::from_utf8_lossy(text).into_owned());
        let mut text = || texts.next().unwrap_or_default();
        match kind {
            b'P' => {
                let (name, statement) = (text(), text());
                let known = self.prepared.values().any(|known| *known == statement);
                self.flight.prepares = Some(if known { Prepares::Again } else { Prepares::First });
                self.prepared.insert(name, statement);
            }
            b'B' => {
                let portal = text();
                let statement = self.prepared.get(&text()).cloned().unwrap_or_default();
                self.portals.insert(portal, statement);
            }
            b'E' => {
                let statement = self.portals.get(&text()).cloned().unwrap_or_default();
                self.flight.statements.push(statement);
            }
            b'Q' => {
                let statement = text();
                self.flight.asynchronous |= statement.contains("synchronous_commit = off");
                self.flight.statements.push(statement);
                return self.take_off();
            }
            b'S' => return self.take_off(),
            _ => {}
        }
        None
    }

    fn take_off(&mut self) -> Option<Lost> {
        let next = Flight { statements: Vec::new(), prepares: None, ..self.flight };
        let flight = std::mem::replace(&mut self.flight, next);
        let mut heard = self.log.heard();
        let fresh = self.number > heard.known;
        let is_in = |(part, _): &mut (String, Lost)| flight.statements.iter().any(|text| text.contains(&**part));
        let lost = heard.losing.take_if(is_in).map(|(_, what)| what);
        self.reply_is_lost.fetch_or(lost == Some(Lost::Reply), Ordering::AcqRel);
        heard.flights.push(Flight { fresh, ..flight });
        lost
    }
}
