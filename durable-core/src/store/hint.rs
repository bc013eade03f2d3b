//! Hints between processes, by NOTIFY and LISTEN: how they are sent and heard. What they say is `hints`.

use std::io;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};

use super::link::answer;
use super::query;
use super::sql::Sql;

/// How long a connection that listens may be silent before it is asked whether it is there. sqlx sets no keepalive.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Tell all who listen to a channel.
pub(crate) async fn hint(
    connection: &mut PgConnection,
    sql: &Sql,
    channel: &str,
    text: &str,
) -> Result<(), sqlx::Error> {
    query(&sql.hint).bind(channel).bind(text).execute(connection).await.map(drop)
}

/// A connection that listens to a channel. After an error it is of no use any more: open another one.
pub(crate) struct Ear<'s> {
    listener: PgListener,
    sql: &'s Sql,
}

impl<'s> Ear<'s> {
    /// Listen from now on.
    pub(crate) async fn open(pool: &PgPool, sql: &'s Sql, channel: &str) -> Result<Self, sqlx::Error> {
        // A pool of its own, because the listener gives its connection back to it, in whatever state; and without
        // times to keep, for which it would have a task.
        let (kept, options) = (pool.options().clone(), (*pool.connect_options()).clone());
        let pool = kept.max_connections(1).idle_timeout(None).max_lifetime(None).connect_lazy_with(options);
        let opened = answer(async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.eager_reconnect(false);
            listener.listen(channel).await?;
            Ok(listener)
        });
        let listener = opened.await.map_err(|_| silent())??;
        Ok(Self { listener, sql })
    }

    /// The next text. Does not wait for ever on a connection whose other end is gone without a word.
    pub(crate) async fn next(&mut self) -> Result<String, sqlx::Error> {
        loop {
            match tokio::time::timeout(SILENCE_MAX, self.listener.try_recv()).await {
                Ok(Ok(Some(heard))) => return Ok(heard.payload().to_owned()),
                // sqlx would connect again on its own, without saying when it listens.
                Ok(Ok(None)) => return Err(silent()),
                Ok(Err(error)) => return Err(error),
                Err(_) => self.ping().await?,
            }
        }
    }

    async fn ping(&mut self) -> Result<(), sqlx::Error> {
        answer(query(&self.sql.ping).execute(&mut self.listener)).await.map_err(|_| silent())?.map(drop)
    }
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the connection that listens for hints was lost"))
}
