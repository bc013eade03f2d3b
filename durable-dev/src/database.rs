//! A database that stays: for examples, demos and trying things out.

use std::sync::Arc;

use crate::access::Access;
use crate::cluster::Kind;
use crate::session::{ident, literal};
use crate::{Error, Settings};

/// A database for examples and demos. It keeps the private cluster up while it lives; the data stays.
pub struct Database {
    url: String,
    _access: Option<Arc<Access>>,
}

impl Database {
    /// Finds or starts a server as the [crate] says, and makes the database `name` in it if it is missing.
    ///
    /// With `DATABASE_URL` set this is that URL, unchanged and untried: `name` is not used.
    ///
    /// # Durability
    /// The private cluster runs with PostgreSQL's durable settings: what was committed is there after a crash.
    ///
    /// # Errors
    /// There is no server, and none can be made; the error says what to do.
    ///
    /// ```no_run
    /// let database = durable_dev::Database::dev("shop")?;
    /// println!("psql '{}'", database.url());
    /// # Ok::<(), durable_dev::Error>(())
    /// ```
    pub fn dev(name: &str) -> Result<Database, Error> {
        Database::with(&Settings::from_env()?, name)
    }

    /// As [`Database::dev`], with settings of one's own.
    ///
    /// # Errors
    /// As [`Database::dev`].
    pub fn with(settings: &Settings, name: &str) -> Result<Database, Error> {
        if let Some(url) = &settings.database_url {
            return Ok(Database { url: url.clone(), _access: None });
        }
        let access = Access::using(settings, Kind::Dev, |access| ensure(access, name).map(|()| access.clone()))?;
        Ok(Database { url: access.url(name), _access: Some(access) })
    }

    /// The URL for a driver. On a private cluster it is a unix socket:
    /// `postgres:///name?host=/directory&port=5432&user=postgres&sslmode=disable`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn ensure(access: &Access, name: &str) -> Result<(), Error> {
    let act = format!("make the database {name}");
    access.with_session(|session| {
        let known = format!("select 1 from pg_catalog.pg_database where datname = {}", literal(name));
        if session.value(&act, &known)?.is_some() {
            return Ok(());
        }
        match session.query(&act, &format!("create database {}", ident(name))) {
            // Somebody made it between the look and now; the second code is what a tie looks like.
            Err(error) if matches!(error.code(), Some("42P04" | "23505")) => Ok(()),
            answer => answer.map(drop),
        }
    })
}
