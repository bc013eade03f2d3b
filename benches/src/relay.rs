//! A relay to the server: the private server has no port, and TCP is to be measured too.
//!
//! What is compared goes through it either way, so that it costs both the same. What TCP would do to large batches it
//! does between the library and the relay: the kernel is the same.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::bench::Bench;

/// How the library reaches the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Tcp,
    UnixSocket,
}

/// Ends when dropped.
pub(crate) struct Relay {
    pub(crate) url: String,
    accepting: JoinHandle<()>,
    _socket: Option<Socket>,
}

/// A socket's directory, removed with it.
struct Socket(PathBuf);

impl Relay {
    pub(crate) async fn start(bench: &Bench, transport: Transport) -> Result<Self> {
        let options = bench.pool.connect_options();
        let directory = options.get_socket().context("the private server has no socket")?;
        let server = directory.join(format!(".s.PGSQL.{}", options.get_port()));
        match transport {
            Transport::Tcp => {
                let listener = TcpListener::bind("127.0.0.1:0").await.context("could not listen on 127.0.0.1")?;
                let port = listener.local_addr()?.port();
                let accepting = tokio::spawn(async move {
                    while let Ok((client, _)) = listener.accept().await {
                        // As PostgreSQL does on its side.
                        drop(client.set_nodelay(true));
                        tokio::spawn(pass(client, server.clone()));
                    }
                });
                let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?sslmode=disable");
                Ok(Self { url, accepting, _socket: None })
            }
            Transport::UnixSocket => {
                let directory = std::env::temp_dir().join(format!("durable-relay-{}", std::process::id()));
                std::fs::create_dir_all(&directory)?;
                let socket = Socket(directory);
                let listener = UnixListener::bind(socket.0.join(".s.PGSQL.5432"))?;
                let accepting = tokio::spawn(async move {
                    while let Ok((client, _)) = listener.accept().await {
                        tokio::spawn(pass(client, server.clone()));
                    }
                });
                let host = socket.0.display();
                let url = format!("postgres:///postgres?host={host}&port=5432&user=postgres&sslmode=disable");
                Ok(Self { url, accepting, _socket: Some(socket) })
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left in the directory for temporary files harms nobody.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An end of one side is an end of the other.
async fn pass(mut client: impl AsyncRead + AsyncWrite + Unpin, server: PathBuf) {
    if let Ok(mut server) = UnixStream::connect(server).await {
        drop(copy_bidirectional(&mut client, &mut server).await);
    }
}
