//! One server as this process uses it: the URL of its databases, a few idle sessions, and what keeps it up.
//!
//! Tests ask for a hundred databases of one server; all of them share one [`Access`].

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::cluster::{Held, Kind};
use crate::resolve::{self, Source};
use crate::session::Session;
use crate::url::{self, Target};
use crate::{Error, Settings};

/// More sessions than this are closed instead of kept: as many as tests usually begin at once.
const IDLE_SESSIONS_MAX: usize = 4;

pub(crate) struct Access {
    key: String,
    /// The URL of the database for administration.
    url: String,
    target: Target,
    idle: Mutex<Vec<Session>>,
    /// Templates known to be finished.
    pub(crate) templates: Mutex<HashSet<String>>,
    /// Marks the databases of this process as belonging to a living one, see `testdb`.
    pub(crate) mark: Mutex<Option<crate::testdb::Mark>>,
    broken: AtomicBool,
    _held: Option<Held>,
}

impl Access {
    /// Does something with the server, a second time with a new access when the first lost its connection: a session
    /// may answer for a moment after its server was killed.
    pub(crate) fn using<T>(
        settings: &Settings,
        kind: Kind,
        act: impl Fn(&Arc<Access>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let access = Access::to(settings, kind)?;
        match act(&access) {
            Err(Error::Io { .. }) => {
                access.broken.store(true, Ordering::Relaxed);
                act(&Access::to(settings, kind)?)
            }
            answer => answer,
        }
    }

    /// The access that this process already has, if its server still answers, or a new one.
    fn to(settings: &Settings, kind: Kind) -> Result<Arc<Access>, Error> {
        static OPEN: Mutex<Vec<Weak<Access>>> = Mutex::new(Vec::new());
        let key = format!("{:?} {:?} {:?}", settings.database_url, settings.home, kind);
        // Held until the server is up: threads that come at the same time want the same one.
        let mut open = locked(&OPEN);
        open.retain(|access| access.upgrade().is_some_and(|access| !access.broken.load(Ordering::Relaxed)));
        if let Some(access) = open.iter().filter_map(Weak::upgrade).find(|access| access.key == key)
            && access.with_session(|session| session.query("ask for a sign of life", "select 1")).is_ok()
        {
            return Ok(access);
        }
        let access = Arc::new(Access::new(key, settings, kind)?);
        open.retain(|other| other.upgrade().is_some_and(|other| other.key != access.key));
        open.push(Arc::downgrade(&access));
        Ok(access)
    }

    fn new(key: String, settings: &Settings, kind: Kind) -> Result<Access, Error> {
        let (url, held) = match resolve::server(settings, kind)? {
            Source::Given(url) => (url, None),
            Source::Private(held) => (url::private(&held.sockets, "postgres"), Some(held)),
        };
        Ok(Access {
            key,
            target: Target::parse(&url)?,
            url,
            idle: Mutex::default(),
            templates: Mutex::default(),
            mark: Mutex::default(),
            broken: AtomicBool::new(false),
            _held: held,
        })
    }

    /// The caller's URL of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        url::with_database(&self.url, database)
    }

    /// A session of its own in `database`.
    pub(crate) fn session(&self, database: Option<&str>) -> Result<Session, Error> {
        match database {
            Some(database) => Session::open(&self.target.with_database(database)),
            None => Session::open(&self.target),
        }
    }

    /// Lends a session of the database for administration. One whose use failed is not lent again.
    pub(crate) fn with_session<T>(&self, act: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<T, Error> {
        let idle = locked(&self.idle).pop();
        let mut session = match idle {
            Some(session) => session,
            None => self.session(None)?,
        };
        let answer = act(&mut session)?;
        let mut idle = locked(&self.idle);
        if idle.len() < IDLE_SESSIONS_MAX {
            idle.push(session);
        }
        Ok(answer)
    }
}

/// A panic while one of our locks was held leaves nothing half done behind it.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
