//! What a caller may choose, and where the choices come from. What follows from them is decided in `resolve`.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;

/// How a server is found. [`Settings::from_env`] is what [`Database::dev`](crate::Database::dev) and
/// [`TestDb::create`](crate::TestDb::create) use; build one by hand to be independent of the environment.
#[derive(Debug, Clone)]
pub struct Settings {
    pub(crate) database_url: Option<String>,
    pub(crate) home: Option<PathBuf>,
    pub(crate) search: Option<Vec<PathBuf>>,
    pub(crate) fetch: bool,
    pub(crate) linger: Duration,
}

/// Long enough that the binaries of one `cargo test` hand the cluster to each other, short enough that nobody finds
/// a server he did not ask for.
const LINGER: Duration = Duration::from_secs(5);

impl Default for Settings {
    fn default() -> Settings {
        Settings { database_url: None, home: None, search: None, fetch: true, linger: LINGER }
    }
}

impl Settings {
    /// No `DATABASE_URL`, the usual places, fetching allowed: the environment is not read.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// What the environment says, see the table at the [crate](crate).
    ///
    /// # Errors
    /// A variable that is set and cannot be understood.
    pub fn from_env() -> Result<Settings, Error> {
        let text = |name: &str| std::env::var(name).ok();
        let mut settings = Settings::new();
        settings.database_url = text("DATABASE_URL").filter(|url| !url.is_empty());
        settings.home = text("DURABLE_DEV_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
        settings.search = text("DURABLE_DEV_SEARCH")
            .map(|list| list.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect());
        settings.fetch = match text("DURABLE_DEV_FETCH").as_deref() {
            None | Some("" | "on" | "1") => true,
            Some("off" | "0") => false,
            Some(other) => {
                return Err(Error::setting(format!("DURABLE_DEV_FETCH={other}"), "expected on or off"));
            }
        };
        if let Some(seconds) = text("DURABLE_DEV_LINGER") {
            settings.linger =
                seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).ok_or_else(
                    || Error::setting(format!("DURABLE_DEV_LINGER={seconds}"), "expected a number of seconds"),
                )?;
        }
        Ok(settings)
    }

    /// Use this server and start none.
    pub fn database_url(mut self, url: impl Into<String>) -> Settings {
        self.database_url = Some(url.into());
        self
    }

    /// Keep clusters and fetched programs here. Default: the user's data directory; for root, a directory in `/var/tmp`
    /// that the unprivileged user of the server can reach.
    pub fn home(mut self, home: impl Into<PathBuf>) -> Settings {
        self.home = Some(home.into());
        self
    }

    /// Look for PostgreSQL in these directories only, not on `PATH` and not in the usual places.
    pub fn search_only(mut self, directories: impl IntoIterator<Item = PathBuf>) -> Settings {
        self.search = Some(directories.into_iter().collect());
        self
    }

    /// Whether PostgreSQL may be fetched when none is installed. Default: yes.
    pub fn fetch(mut self, allowed: bool) -> Settings {
        self.fetch = allowed;
        self
    }

    /// How long a private cluster stays up at least once nobody uses it. It can be twice as long when somebody came
    /// and went in that time. Default: 5 seconds.
    pub fn linger(mut self, linger: Duration) -> Settings {
        self.linger = linger;
        self
    }
}
