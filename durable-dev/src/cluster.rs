//! The private clusters of a user, shared by all his processes: made, started, entered, asked about, stopped.
//!
//! A cluster belongs to a user, a kind, a major version of PostgreSQL and a version of our settings; its directory is
//! named after them. Whoever uses it holds the writing end of a pipe that `supervisor.sh` reads, so a process that is
//! killed leaves like one that ends. Only starting needs a lock; entering a cluster that is up does not.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::install::Installation;
use crate::launch::{self, Durability, Ping};
use crate::system::{self, ServerUser};
use crate::{Error, Settings, url};

/// Raised when a change to `launch` makes clusters that older versions made unfit.
const SETTINGS_VERSION: u32 = 1;

/// What a cluster is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Examples and demos: durable, and still there tomorrow.
    Dev,
    /// Tests: fast, nothing in it matters.
    Test,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Dev => "dev",
            Kind::Test => "test",
        }
    }

    fn durability(self) -> Durability {
        match self {
            Kind::Dev => Durability::Durable,
            Kind::Test => Durability::Fast,
        }
    }
}

/// A place for a cluster, made or not, up or not.
#[derive(Debug, Clone)]
pub(crate) struct Cluster {
    kind: Kind,
    pub(crate) major: u32,
    directory: PathBuf,
    user: ServerUser,
}

/// Keeps a cluster up while it lives.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) sockets: PathBuf,
    _in_use: File,
}

/// What trying to enter a cluster can find.
enum Entry {
    Entered(File),
    /// Its supervisor is stopping it, or is about to think better of it.
    Closing,
    /// Nobody supervises it.
    Absent,
}

impl Cluster {
    pub(crate) fn new(home: &Path, kind: Kind, major: u32) -> Result<Cluster, Error> {
        let directory = home.join(format!("{}-pg{major}-v{SETTINGS_VERSION}", kind.name()));
        Ok(Cluster { kind, major, directory, user: ServerUser::find()? })
    }

    /// The clusters of a kind that were ever made, newest PostgreSQL first.
    pub(crate) fn made(home: &Path, kind: Kind) -> Result<Vec<Cluster>, Error> {
        let (prefix, suffix) = (format!("{}-pg", kind.name()), format!("-v{SETTINGS_VERSION}"));
        let entries = fs::read_dir(home).map_err(Error::path("list", home))?.flatten();
        let majors = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_prefix(&prefix)?.strip_suffix(&suffix)?.parse::<u32>().ok()
        });
        let mut majors: Vec<u32> = majors.collect();
        majors.sort_unstable_by_key(|major| std::cmp::Reverse(*major));
        let clusters = majors.into_iter().map(|major| Cluster::new(home, kind, major));
        let clusters: Result<Vec<Cluster>, Error> = clusters.collect();
        Ok(clusters?.into_iter().filter(|cluster| cluster.data().is_dir()).collect())
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    /// Enters the cluster if it is up and answers; never starts it, never waits for it.
    pub(crate) fn enter_if_up(&self) -> Result<Option<Held>, Error> {
        let Entry::Entered(in_use) = self.enter()? else {
            return Ok(None);
        };
        let sockets = launch::socket_directory(&self.directory, self.user)?;
        Ok((launch::ping(&sockets) == Ping::Ready).then_some(Held { sockets, _in_use: in_use }))
    }

    /// Enters the cluster, made and started first as far as that is needed.
    pub(crate) fn enter_or_start(&self, installation: &Installation, linger: Duration) -> Result<Held, Error> {
        self.user.private_directory(&self.directory)?;
        let sockets = launch::socket_directory(&self.directory, self.user)?;
        let lock = self.directory.join("start.lock");
        let lock = File::create(&lock).map_err(Error::path("make", &lock))?;
        lock.lock().map_err(Error::path("wait for another start of", &self.directory))?;
        let mut began_at = None;
        let held = launch::poll(|| {
            match self.enter()? {
                Entry::Closing => return Ok(None),
                Entry::Entered(in_use) => match launch::ping(&sockets) {
                    Ping::Ready => {
                        return Ok(Some(Held { sockets: sockets.clone(), _in_use: in_use }));
                    }
                    // Hold on while it comes up, or its supervisor would think nobody wants it.
                    Ping::Busy | Ping::Silent => self.wait_while_supervised(&sockets, &in_use)?,
                },
                Entry::Absent => {
                    // A server that ends right after its start has said why.
                    if let Some(began_at) = began_at
                        && !launch::too_early(&self.log(), began_at)?
                    {
                        return Err(self.did_not_start());
                    }
                    began_at = Some(self.start(installation, &sockets, linger)?);
                }
            }
            Ok(None)
        })?;
        held.ok_or_else(|| self.did_not_start())
    }

    fn did_not_start(&self) -> Error {
        Error::Start { data: self.data(), log: launch::log_tail(&self.log()) }
    }

    /// Returns when the server answers or its supervisor is gone.
    fn wait_while_supervised(&self, sockets: &Path, _in_use: &File) -> Result<(), Error> {
        let answered = launch::poll(|| {
            let up = launch::ping(sockets) == Ping::Ready;
            Ok((up || !self.pipe("in-use")?.exists()).then_some(()))
        })?;
        answered.ok_or_else(|| self.did_not_start())
    }

    fn enter(&self) -> Result<Entry, Error> {
        // The pipe changes its name when the supervisor wants to stop and back when it does not; whoever misses it
        // under both names in that moment sees it under the first one at the second look.
        for name in ["in-use", "closing", "in-use"] {
            let pipe = self.pipe(name)?;
            let Some(mut end) = open_writing_end(&pipe)? else {
                continue;
            };
            if name == "closing" {
                return Ok(Entry::Closing);
            }
            // The line that tells the supervisor of a newcomer. It fails when the supervisor just went.
            return Ok(if end.write_all(b"+\n").is_ok() { Entry::Entered(end) } else { Entry::Closing });
        }
        Ok(Entry::Absent)
    }

    /// The pipe of the present supervisor. Each one has names of its own, so that the last act of an old one cannot
    /// remove the pipe of a new one.
    fn pipe(&self, name: &str) -> Result<PathBuf, Error> {
        let file = self.directory.join("generation");
        match fs::read_to_string(&file) {
            Ok(generation) => Ok(self.directory.join(format!("{name}.{generation}"))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(self.directory.join(name)),
            Err(error) => Err(Error::path("read", &file)(error)),
        }
    }

    /// Only under the lock, and only when nobody supervises the cluster. Returns where the log of this start begins.
    fn start(&self, installation: &Installation, sockets: &Path, linger: Duration) -> Result<u64, Error> {
        if self.data().is_dir() {
            launch::clear_leftover(installation, self.user, &self.data())?;
        } else {
            launch::init(installation, self.user, &self.data(), self.kind.durability())?;
        }
        self.remove_old_pipes()?;
        let generation = self.next_generation()?;
        let log = launch::open_log(&self.log())?;
        let began_at = launch::log_length(&self.log());
        let log_too = log.try_clone().map_err(Error::path("share", &self.log()))?;
        let mut supervisor = self.user.command("/bin/sh");
        supervisor.arg("-c").arg(include_str!("supervisor.sh")).arg("durable-dev-supervisor");
        supervisor.arg(&self.directory).arg(&generation).arg(linger.as_secs_f64().to_string());
        supervisor.args(launch::arguments(installation, &self.data(), sockets, self.kind.durability(), &[]));
        supervisor.stdout(Stdio::from(log)).stderr(Stdio::from(log_too));
        let mut supervisor = supervisor.spawn().map_err(Error::io("start /bin/sh as the supervisor"))?;
        let pipe = self.directory.join(format!("in-use.{generation}"));
        let made = launch::poll(|| {
            let ended = supervisor.try_wait().map_err(Error::io("ask for the supervisor"))?;
            Ok(if pipe.exists() { Some(true) } else { ended.map(|_| false) })
        })?;
        // It outlives us, but if it does not, it must not stay as a zombie of ours.
        std::thread::spawn(move || supervisor.wait());
        if made == Some(true) { Ok(began_at) } else { Err(self.did_not_start()) }
    }

    fn next_generation(&self) -> Result<String, Error> {
        let file = self.directory.join("generation");
        let last: u64 = fs::read_to_string(&file).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        let generation = (last + 1).to_string();
        let fresh = self.directory.join("generation.new");
        fs::write(&fresh, &generation).map_err(Error::path("write", &fresh))?;
        fs::rename(&fresh, &file).map_err(Error::path("replace", &file))?;
        Ok(generation)
    }

    fn remove_old_pipes(&self) -> Result<(), Error> {
        let entries = fs::read_dir(&self.directory).map_err(Error::path("list", &self.directory))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("in-use.") || name.starts_with("closing.") {
                // A supervisor that is on its last line may be faster than we are.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }
}

/// Opens the writing end of a pipe, if there is one that somebody reads.
fn open_writing_end(pipe: &Path) -> Result<Option<File>, Error> {
    const O_NONBLOCK: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 0o4000 } else { 4 };
    // "No such device or address": the pipe is there, its reader is not.
    const ENXIO: i32 = 6;
    match OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(pipe) {
        Ok(end) => Ok(Some(end)),
        Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::path("open", pipe)(error)),
    }
}

/// One private cluster, as [`status`] found it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClusterStatus {
    /// `dev` or `test`.
    pub kind: &'static str,
    /// PostgreSQL's major version.
    pub major: u32,
    /// Where its files are; the log is `server.log` in it.
    pub directory: PathBuf,
    /// The pid of the server, when it answers.
    pub pid: Option<u32>,
    /// The URL of its `postgres` database, good while it is up.
    pub url: String,
}

/// The private clusters of this user. Looking at them does not keep them up.
///
/// # Errors
/// The directory of clusters cannot be read or is not ours.
pub fn status(settings: &Settings) -> Result<Vec<ClusterStatus>, Error> {
    let home = system::home(settings.home.as_deref())?;
    let mut found = Vec::new();
    for kind in [Kind::Dev, Kind::Test] {
        for cluster in Cluster::made(&home, kind)? {
            let sockets = launch::socket_path(&cluster.directory, cluster.user);
            let up = launch::ping(&sockets) != Ping::Silent;
            found.push(ClusterStatus {
                kind: kind.name(),
                major: cluster.major,
                pid: launch::postmaster_pid(&cluster.data()).filter(|_| up),
                url: url::private(&sockets, "postgres"),
                directory: cluster.directory,
            });
        }
    }
    Ok(found)
}

/// Stops the private clusters of this user, even those in use, and returns those that were up.
///
/// # Errors
/// A cluster is up, and no installation of its major version is left to stop it with.
pub fn stop(settings: &Settings) -> Result<Vec<ClusterStatus>, Error> {
    let home = system::home(settings.home.as_deref())?;
    let up: Vec<ClusterStatus> = status(settings)?.into_iter().filter(|cluster| cluster.pid.is_some()).collect();
    for cluster in &up {
        let (found, _) = crate::install::find(settings.search.as_deref())?;
        let fetched = crate::fetch::cached(&home)?;
        let installation = found.into_iter().chain(fetched).find(|found| found.major == cluster.major);
        let missing = || Error::setting(format!("PostgreSQL {}", cluster.major), "it is up but no longer installed");
        launch::stop(&installation.ok_or_else(missing)?, ServerUser::find()?, &cluster.directory.join("data"))?;
    }
    Ok(up)
}
