//! A server of one's own, to be killed and started again: for tests of what survives a crash.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::install::Installation;
use crate::launch::{self, Durability, Ping};
use crate::system::{self, Process, ServerUser};
use crate::{Error, Settings, resolve, url};

/// How a [`Server`] is set up.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    settings: Option<Settings>,
    extra: Vec<(String, String)>,
}

impl ServerOptions {
    /// Durable settings, as in production.
    pub fn new() -> ServerOptions {
        ServerOptions::default()
    }

    /// A setting of PostgreSQL, as by `-c name=value`. The last one of a name wins.
    pub fn set(mut self, name: &str, value: &str) -> ServerOptions {
        self.extra.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Where to find PostgreSQL, instead of what the environment says. A `DATABASE_URL` in them is not used: that
    /// server is not ours to kill.
    pub fn settings(mut self, settings: Settings) -> ServerOptions {
        self.settings = Some(settings);
        self
    }
}

/// A throw-away server that belongs to this process alone.
///
/// It is stopped and its files are removed when the value is dropped, and also when this process is killed.
///
/// ```no_run
/// use durable_dev::{Server, ServerOptions};
///
/// let mut server = Server::start(ServerOptions::new().set("deadlock_timeout", "10ms"))?;
/// println!("work in {}", server.url("postgres"));
/// server.kill()?;       // like a power cut for the processes of the server
/// server.restart()?;    // recovers; the URL is the same
/// # Ok::<(), durable_dev::Error>(())
/// ```
pub struct Server {
    directory: PathBuf,
    sockets: PathBuf,
    installation: Installation,
    user: ServerUser,
    extra: Vec<(String, String)>,
    up: Option<Up>,
}

struct Up {
    postmaster: Child,
    guard: Child,
}

/// Reads a line from us, or the end of the pipe when we are gone: only then it ends the server and cleans up.
/// Arguments: the server's pid, then the directories to remove.
const GUARD: &str = r#"
trap '' HUP INT
if read -r _; then exit 0; fi
pid=$1
shift
kill -INT "$pid" 2>/dev/null
tries=0
while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do sleep 0.1; tries=$((tries + 1)); done
rm -rf "$@"
"#;

impl Server {
    /// Makes a cluster in a temporary directory and starts it.
    ///
    /// # Durability
    /// `fsync` and its kind are on: what a client saw committed is there after [`Server::kill`] and
    /// [`Server::restart`].
    ///
    /// # Errors
    /// No PostgreSQL is installed or can be fetched, or it does not start.
    pub fn start(options: ServerOptions) -> Result<Server, Error> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let settings = options.settings.map_or_else(Settings::from_env, Ok)?;
        let home = system::home(settings.home.as_deref())?;
        let installation = resolve::installation(&settings, &home)?;
        let user = ServerUser::find()?;
        remove_leftovers(&home)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = home.join(format!("server-{}-{number}", std::process::id()));
        if directory.exists() {
            // Of an earlier process with our pid.
            fs::remove_dir_all(&directory).map_err(Error::path("remove", &directory))?;
        }
        user.private_directory(&directory)?;
        let sockets = launch::socket_directory(&directory, user)?;
        let mut server = Server { directory, sockets, installation, user, extra: options.extra, up: None };
        // Not synced: these files need not survive the machine, only what is written after the start.
        launch::init(&server.installation, user, &server.data(), Durability::Fast)?;
        server.restart()?;
        Ok(server)
    }

    /// The URL of a database, the same after every restart. `postgres` exists from the start.
    pub fn url(&self, database: &str) -> String {
        url::private(&self.sockets, database)
    }

    /// Where its programs are: `psql`, `pg_dump` and, where the installation has them, `pgbench` and its kind.
    pub fn programs(&self) -> &Path {
        &self.installation.bin
    }

    /// The pid of the server, while it is up.
    pub fn pid(&self) -> Option<u32> {
        self.up.as_ref().map(|up| up.postmaster.id())
    }

    /// Kills the server and all its sessions by `kill -9`, in the middle of whatever they do. Does nothing when it is
    /// down.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn kill(&mut self) -> Result<(), Error> {
        let Some(mut up) = self.up.take() else {
            return Ok(());
        };
        dismiss(&mut up.guard)?;
        // Sessions see the death of the postmaster only when they wait for something: a busy one would go on for
        // minutes, and even commit. Frozen, the postmaster makes no more children while we count them.
        system::send("STOP", &[up.postmaster.id()])?;
        let children = system::children(up.postmaster.id())?;
        up.postmaster.kill().map_err(Error::io("kill the server"))?;
        system::send("KILL", &children)?;
        // Waiting is not a courtesy: a zombie answers to its pid, and the next start would refuse.
        up.postmaster.wait().map_err(Error::io("wait for the killed server"))?;
        let alive = |pid: &u32| matches!(system::process(*pid), Process::Alive { .. });
        launch::poll(|| Ok((!children.iter().any(alive)).then_some(()))).map(drop)
    }

    /// Stops the server in good order: a checkpoint is written, open transactions are rolled back. Does nothing when
    /// it is down.
    ///
    /// # Errors
    /// It does not stop.
    pub fn stop(&mut self) -> Result<(), Error> {
        let Some(mut up) = self.up.take() else {
            return Ok(());
        };
        dismiss(&mut up.guard)?;
        // In the background: pg_ctl waits until the pid is gone, which takes somebody who reaps it.
        let mut postmaster = up.postmaster;
        let reaper = std::thread::spawn(move || postmaster.wait());
        launch::stop(&self.installation, self.user, &self.data())?;
        match reaper.join() {
            Ok(ended) => ended.map_err(Error::io("wait for the stopped server")).map(drop),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Starts the server after [`Server::kill`] or [`Server::stop`]; when it is up, it is stopped first.
    ///
    /// # Errors
    /// It does not come up; the error holds the end of its log.
    pub fn restart(&mut self) -> Result<(), Error> {
        self.stop()?;
        let started = launch::poll(|| self.try_start())?;
        started.ok_or_else(|| self.did_not_start())
    }

    /// None: not yet, orphans of the killed server still hold its memory.
    fn try_start(&mut self) -> Result<Option<()>, Error> {
        let log = self.log();
        let file = launch::open_log(&log)?;
        let began_at = launch::log_length(&log);
        let file_too = file.try_clone().map_err(Error::path("share", &log))?;
        let arguments =
            launch::arguments(&self.installation, &self.data(), &self.sockets, Durability::Durable, &self.extra);
        let mut command = self.user.command(&arguments[0]);
        command.args(&arguments[1..]).stdout(Stdio::from(file)).stderr(Stdio::from(file_too));
        let mut postmaster = command.spawn().map_err(Error::io("start postgres"))?;
        let guard = self.guard(postmaster.id());
        let mut guard = match guard {
            Ok(guard) => guard,
            Err(error) => {
                postmaster.kill().and_then(|()| postmaster.wait()).map_err(Error::io("take back the start"))?;
                return Err(error);
            }
        };
        let ended = launch::poll(|| {
            let ended = postmaster.try_wait().map_err(Error::io("ask for the server"))?.is_some();
            Ok((ended || launch::ping(&self.sockets) == Ping::Ready).then_some(ended))
        })?;
        if ended == Some(false) {
            self.up = Some(Up { postmaster, guard });
            return Ok(Some(()));
        }
        dismiss(&mut guard)?;
        postmaster.kill().and_then(|()| postmaster.wait()).map_err(Error::io("take back the start"))?;
        if launch::too_early(&log, began_at)? { Ok(None) } else { Err(self.did_not_start()) }
    }

    fn guard(&self, pid: u32) -> Result<Child, Error> {
        // Not as the server's user: the directory to remove may lie in one of ours.
        let mut guard = Command::new("/bin/sh");
        guard.args(["-c", GUARD, "durable-dev-guard", &pid.to_string()]).arg(&self.directory).arg(&self.sockets);
        guard.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut guard, 0);
        guard.spawn().map_err(Error::io("start /bin/sh as the guard"))
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.join("server.log")
    }

    fn did_not_start(&self) -> Error {
        Error::Start { data: self.data(), log: launch::log_tail(&self.log()) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nobody is left to be told; what cannot be removed now is removed by a later start.
        let _ = self.kill();
        let _ = fs::remove_dir_all(&self.sockets);
        for _ in 0..100 {
            // Sessions of the killed server may write a last file while we remove.
            match fs::remove_dir_all(&self.directory) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    std::thread::sleep(Duration::from_millis(10))
                }
                Ok(()) | Err(_) => break,
            }
        }
    }
}

fn dismiss(guard: &mut Child) -> Result<(), Error> {
    if let Some(mut stdin) = guard.stdin.take() {
        // A guard that was killed does not read; then there is nobody to dismiss.
        let _ = stdin.write_all(b"done\n");
    }
    guard.wait().map_err(Error::io("dismiss the guard")).map(drop)
}

/// Directories of processes that were killed together with their guards.
fn remove_leftovers(home: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(home).map_err(Error::path("list", home))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix("server-").and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        let Some(owner) = owner.filter(|pid| system::process(*pid) == Process::Gone) else {
            continue;
        };
        let server = launch::postmaster_pid(&entry.path().join("data"));
        // Not while its guard is still at work; and another process may do the same at this moment.
        if owner != std::process::id() && server.is_none_or(|pid| system::process(pid) == Process::Gone) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}
