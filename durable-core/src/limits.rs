//! Limits around steps, for callers: setting them while everything runs, pausing, looking.

use crate::client::Durable;
use crate::error::{Error, ErrorKind};
use crate::id::check_text;
use crate::limit::{Limit, LimitInfo};
use crate::store::limit as store;
use crate::store::link::{call_patiently, call_repeatedly};

/// Limits in one answer.
const LIMITS_MAX: i64 = 10_000;

impl Durable {
    /// Set a limit around steps, for all workers: what is not given does not limit any more. Calls that run go on, also where they are more
    /// than it allows now. Who waits asks again within a second, or when its turn has come that it was given before. A limit that had
    /// no concurrency before does not know what runs in a worker until that one asks again.
    ///
    /// It stands until somebody else sets it, or a worker comes that [declares](crate::Builder::limit) another one than was declared
    /// before. Whoever has SQL changes it by `update durable.step_limit set rate = 200 where name = 'openai'`.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for a limit of 0, a period that is longer than a year, a name that no limit can have; database kinds.
    pub async fn set_limit(&self, limit: Limit) -> Result<(), Error> {
        limit.check()?;
        let client = &self.client;
        let act = format!("set limit {:?}", limit.name);
        let limits = [limit];
        call_patiently!(client.links, &act, connection => store::declare_limits(connection, &client.sql, &limits, true))
    }

    /// Let no call begin that keeps to a limit, until it is [resumed](Self::resume_limit). Those that run are not stopped.
    ///
    /// # Errors
    ///
    /// [`NotFound`](ErrorKind::NotFound) for a limit that nobody has declared, [`Usage`](ErrorKind::Usage) for a name that no limit can
    /// have, database kinds.
    pub async fn pause_limit(&self, name: impl AsRef<str>) -> Result<(), Error> {
        self.set_limit_paused(name.as_ref(), true).await
    }

    /// Let calls begin again after a [pause](Self::pause_limit). Who waits looks at least every 15 s.
    ///
    /// # Errors
    ///
    /// As for [`pause_limit`](Self::pause_limit).
    pub async fn resume_limit(&self, name: impl AsRef<str>) -> Result<(), Error> {
        self.set_limit_paused(name.as_ref(), false).await
    }

    /// Remove a limit around steps. A workflow that comes to a step which still names it is blocked, until the limit is declared or
    /// set again and the workflow [resumed](crate::Durable::resume).
    ///
    /// # Errors
    ///
    /// As for [`pause_limit`](Self::pause_limit).
    pub async fn remove_limit(&self, name: impl AsRef<str>) -> Result<(), Error> {
        let name = name.as_ref();
        check_text("limit", name)?;
        let client = &self.client;
        let act = format!("remove limit {name:?}");
        let (removed, repeated) =
            call_repeatedly!(client.links, &act, connection => store::remove_limit(connection, &client.sql, name));
        let removed = removed?;
        // By an earlier try whose reply was lost, perhaps.
        if removed || repeated { Ok(()) } else { Err(not_there(&act)) }
    }

    /// The limits around steps, by name, the first 10,000: what they allow, and how many calls of each run.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn limits(&self) -> Result<Vec<LimitInfo>, Error> {
        let client = &self.client;
        call_patiently!(client.links, "look at the limits", connection =>
                store::limits(connection, &client.sql, LIMITS_MAX))
    }

    async fn set_limit_paused(&self, name: &str, paused: bool) -> Result<(), Error> {
        check_text("limit", name)?;
        let client = &self.client;
        let act = format!("{} limit {name:?}", if paused { "pause" } else { "resume" });
        let found = call_patiently!(client.links, &act, connection => store::pause_limit(connection, &client.sql, name, paused))?;
        if found { Ok(()) } else { Err(not_there(&act)) }
    }
}

fn not_there(act: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("could not {act}: there is no such limit; declare it, or set it first"))
}
