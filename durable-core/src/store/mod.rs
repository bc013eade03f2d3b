//! The only place with SQL. One file per moment of the flow; each statement stands in `sql/`, in a file of
//! its own, and is used by one function of the same name.
//!
//! Functions take the connection first, do one statement, and answer with `sqlx::Error`; `link::call!` gives
//! them a connection and a deadline, and names the act in the error.

pub(crate) mod attribute;
pub(crate) mod cancel;
pub(crate) mod child;
pub(crate) mod claim;
#[cfg(feature = "testing")]
pub(crate) mod clock;
pub(crate) mod code;
pub(crate) mod commit;
#[cfg(feature = "testing")]
pub(crate) mod databases;
pub(crate) mod deadline;
pub(crate) mod event;
pub(crate) mod fork;
pub(crate) mod generation;
pub(crate) mod hint;
pub(crate) mod inspect;
pub(crate) mod keyed;
pub(crate) mod lease;
pub(crate) mod limit;
pub(crate) mod link;
pub(crate) mod list;
pub(crate) mod message;
pub(crate) mod migrate;
pub(crate) mod operate;
pub(crate) mod queue;
pub(crate) mod schedule;
pub(crate) mod sql;
pub(crate) mod start;
pub(crate) mod step;
pub(crate) mod stream;
pub(crate) mod subscription;
pub(crate) mod timeline;
#[cfg(feature = "testing")]
pub(crate) mod trial;

use sqlx::query::Query;
use sqlx::{Postgres, SqlStr};

/// Whether a write of a running workflow found its owner still in place.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fence {
    Held,
    Lost,
}

fn query<'q>(sql: &SqlStr) -> Query<'q, Postgres, sqlx::postgres::PgArguments> {
    sqlx::query(sql.clone())
}
