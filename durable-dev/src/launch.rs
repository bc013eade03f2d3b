//! What every private server has in common: how its files are made, how it is started, when it is ready.
//!
//! Who watches over the running server differs: `supervisor.sh` for shared clusters, the caller for `server`.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::Error;
use crate::install::Installation;
use crate::system::{self, Process, ServerUser};
use crate::url::{PRIVATE_PORT, PRIVATE_USER, Target};
use crate::wire::{Connection, WireError};

/// A start that takes longer is a start that failed. Crash recovery of a development database takes seconds.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at something that is about to happen.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(10);
/// A ready server answers a connection in 3 ms; one that takes this long is busy dying.
const PING_PATIENCE: Duration = Duration::from_secs(5);
/// The address of a unix socket holds 104 bytes on macOS and 108 on Linux, with a zero at the end.
const SOCKET_PATH_MAX: usize = 103;
/// A log that is longer is begun anew at the next start.
const LOG_BYTES_MAX: u64 = 8 << 20;

/// What a server promises its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// As in production: a commit survives the loss of power.
    Durable,
    /// For tests: nothing waits for the disk.
    Fast,
}

/// Makes a data directory in one step: a crash on the way leaves a directory under another name, which the next call
/// removes.
pub(crate) fn init(
    installation: &Installation,
    user: ServerUser,
    data: &Path,
    durability: Durability,
) -> Result<(), Error> {
    let unfinished = data.with_extension("tmp");
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(Error::path("remove", &unfinished))?;
    }
    user.private_directory(&unfinished)?;
    let mut initdb = user.command(installation.program("initdb"));
    initdb.arg("-D").arg(&unfinished).args(["-U", PRIVATE_USER, "-A", "trust", "-E", "UTF8", "--locale=C"]);
    initdb.arg("--no-instructions");
    if durability == Durability::Fast {
        initdb.arg("--no-sync");
    }
    system::output("make a cluster with initdb", &mut initdb)?;
    fs::rename(&unfinished, data).map_err(Error::path("move the new cluster to", data))
}

/// The command line of the server.
pub(crate) fn arguments(
    installation: &Installation,
    data: &Path,
    sockets: &Path,
    durability: Durability,
    extra: &[(String, String)],
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec![installation.program("postgres").into(), "-D".into(), data.into()];
    arguments.extend(["-k".into(), sockets.into(), "-p".into(), PRIVATE_PORT.to_string().into()]);
    let mut set = |name: &str, value: &str| arguments.extend(["-c".into(), format!("{name}={value}").into()]);
    set("listen_addresses", "");
    set("unix_socket_permissions", "0700");
    set("max_connections", "300");
    // Messages go to standard error, which is our log file.
    set("logging_collector", "off");
    let mut preloaded = Vec::new();
    if installation.has_pg_stat_statements() {
        preloaded.push("pg_stat_statements");
        set("pg_stat_statements.max", "10000");
    }
    if durability == Durability::Fast {
        // Tests open thousands of sessions; loaded by each of them it would be a fifth of what a session costs.
        preloaded.push("plpgsql");
        for name in ["fsync", "synchronous_commit", "full_page_writes"] {
            set(name, "off");
        }
        // Test databases live for seconds: vacuuming them is noise, and statistics that change by themselves
        // change plans under a test.
        set("autovacuum", "off");
    }
    if !preloaded.is_empty() {
        set("shared_preload_libraries", &preloaded.join(","));
    }
    // Last, because the last one wins.
    for (name, value) in extra {
        set(name, value);
    }
    arguments
}

/// The directory for the socket: inside `directory` when the path is short enough, else a short one of our own.
pub(crate) fn socket_directory(directory: &Path, user: ServerUser) -> Result<PathBuf, Error> {
    let sockets = socket_path(directory, user);
    user.private_directory(&sockets)?;
    Ok(sockets)
}

/// The same, only named: neither made nor checked.
pub(crate) fn socket_path(directory: &Path, user: ServerUser) -> PathBuf {
    let inside = directory.join("sock");
    if fits(&inside) { inside } else { short_socket_directory(directory, user) }
}

fn short_socket_directory(directory: &Path, user: ServerUser) -> PathBuf {
    let name = system::fingerprint([directory.as_os_str().as_encoded_bytes()]);
    PathBuf::from(format!("/tmp/durable-dev-{}-{:016x}", user.uid, name as u64))
}

fn fits(sockets: &Path) -> bool {
    Target::socket(sockets).as_os_str().len() <= SOCKET_PATH_MAX
}

/// Whether a server answers, and if not, whether that may still change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ping {
    Ready,
    /// It listens, but is starting or stopping.
    Busy,
    Silent,
}

pub(crate) fn ping(sockets: &Path) -> Ping {
    match Connection::open(&Target::private(sockets, "postgres"), PING_PATIENCE) {
        Ok(_) => Ping::Ready,
        // 57P03: cannot connect now. 53300: all connections are taken, by sessions of a server that works.
        Err(WireError::Refused { code, .. }) if code == "53300" => Ping::Ready,
        Err(WireError::Refused { .. } | WireError::Password) => Ping::Busy,
        Err(WireError::Io(_)) => Ping::Silent,
    }
}

/// The log, open for appending.
pub(crate) fn open_log(log: &Path) -> Result<File, Error> {
    let too_long = log_length(log) > LOG_BYTES_MAX;
    if too_long {
        fs::remove_file(log).map_err(Error::path("begin anew", log))?;
    }
    OpenOptions::new().create(true).append(true).open(log).map_err(Error::path("open", log))
}

/// Whether a server that ended while it started may succeed when it is tried again: what it said since `began_at`
/// is that orphans of a killed one still hold its memory. They notice within moments.
pub(crate) fn too_early(log: &Path, began_at: u64) -> Result<bool, Error> {
    let text = fs::read(log).map_err(Error::path("read", log))?;
    let since = usize::try_from(began_at).ok().and_then(|from| text.get(from..)).unwrap_or(&text);
    let said = String::from_utf8_lossy(since);
    Ok(said.contains("shared memory block") || said.contains("lock file"))
}

pub(crate) fn log_length(log: &Path) -> u64 {
    fs::metadata(log).map_or(0, |found| found.len())
}

pub(crate) fn log_tail(log: &Path) -> String {
    system::tail(&fs::read_to_string(log).unwrap_or_else(|error| error.to_string()), 15)
}

/// The pid in the pid file of a data directory.
pub(crate) fn postmaster_pid(data: &Path) -> Option<u32> {
    fs::read_to_string(data.join("postmaster.pid")).ok()?.lines().next()?.trim().parse().ok()
}

/// Ends what an earlier life left behind: a server nobody supervises, or a pid file that names a zombie or, after the
/// pid went to somebody else, a stranger. PostgreSQL itself only sees that the pid answers and refuses to start.
pub(crate) fn clear_leftover(installation: &Installation, user: ServerUser, data: &Path) -> Result<(), Error> {
    let Some(pid) = postmaster_pid(data) else {
        return Ok(());
    };
    match system::process(pid) {
        // PostgreSQL finds out by itself.
        Process::Gone => Ok(()),
        Process::Zombie => disarm(data),
        Process::Alive { program } if program.contains("postgres") && works_in(pid, data) => {
            stop(installation, user, data)
        }
        Process::Alive { .. } => disarm(data),
    }
}

fn works_in(pid: u32, data: &Path) -> bool {
    // Where there is no /proc, a program called postgres is taken for ours.
    fs::read_link(format!("/proc/{pid}/cwd")).map_or(true, |directory| directory == data)
}

/// Puts a pid into the pid file that no process can have. Removing the file would also remove the key of the
/// shared memory in it, by which PostgreSQL sees that orphans of a killed server are still writing.
fn disarm(data: &Path) -> Result<(), Error> {
    let file = data.join("postmaster.pid");
    let text = fs::read_to_string(&file).map_err(Error::path("read", &file))?;
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    fs::write(&file, format!("{}\n{rest}", i32::MAX)).map_err(Error::path("write", &file))
}

/// Stops whatever server works in `data`, and waits for its end.
pub(crate) fn stop(installation: &Installation, user: ServerUser, data: &Path) -> Result<(), Error> {
    let pg_ctl = |mode: &str| -> Command {
        let mut command = user.command(installation.program("pg_ctl"));
        command.arg("stop").arg("-D").arg(data).args(["-m", mode, "-w", "-t", "20", "-s"]);
        command
    };
    let act = format!("stop the server in {}", data.display());
    system::output(&act, &mut pg_ctl("fast")).or_else(|_| system::output(&act, &mut pg_ctl("immediate"))).map(drop)
}

/// Looks again and again until `look` has an answer or the patience for a start is over.
pub(crate) fn poll<T>(mut look: impl FnMut() -> Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    let until = Instant::now() + START_PATIENCE;
    loop {
        if let Some(answer) = look()? {
            return Ok(Some(answer));
        }
        if Instant::now() > until {
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
