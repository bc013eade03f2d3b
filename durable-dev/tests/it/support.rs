//! A home per test, processes to kill, and waiting with a bound.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use durable_dev::Settings;

/// Short, because tests wait for the end of clusters; long enough to come back within.
pub(crate) const LINGER: Duration = Duration::from_millis(300);

pub(crate) struct Home {
    pub(crate) path: PathBuf,
}

impl Home {
    pub(crate) fn new() -> Home {
        Home::at(fast_place(), "")
    }

    /// A home whose path ends in `suffix`.
    pub(crate) fn named(suffix: &str) -> Home {
        Home::at(fast_place(), suffix)
    }

    /// A home that programs can be started from, which memory is not everywhere.
    pub(crate) fn on_disk() -> Home {
        Home::at(DISK, "")
    }

    fn at(place: &str, suffix: &str) -> Home {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("durable-dev-it-{}-{number}{suffix}", std::process::id());
        Home { path: Path::new(place).join(name) }
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings::new().home(&self.path).fetch(false).linger(LINGER)
    }

    /// The command line program in this home.
    pub(crate) fn program(&self, arguments: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_durable-dev"));
        program.args(arguments).env_remove("DATABASE_URL").env_remove("DURABLE_DEV_SEARCH");
        program.env("DURABLE_DEV_HOME", &self.path).env("DURABLE_DEV_FETCH", "off");
        program.env("DURABLE_DEV_LINGER", LINGER.as_secs_f64().to_string());
        program
    }

    /// A process that uses the dev cluster, and the URL it got.
    pub(crate) fn owner(&self) -> (Owner, String) {
        let mut program = self.program(&["url", "shop"]);
        let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("postgres://"), "the program said {url:?}");
        (Owner(child), url.trim().to_owned())
    }

    /// The pid of the only cluster that is up.
    pub(crate) fn server_pid(&self) -> Option<u32> {
        let mut up = durable_dev::status(&self.settings()).unwrap().into_iter().filter_map(|cluster| cluster.pid);
        let first = up.next();
        assert_eq!(up.next(), None, "more than one cluster is up");
        first
    }
}

/// A place that the user a server runs as can reach too, unlike some temporary directories.
const DISK: &str = "/var/tmp";
const MEMORY: &str = "/dev/shm";
/// What our clusters need together; containers often have far less.
const MEMORY_KB_MIN: u64 = 2 << 20;

/// Every test makes a cluster, and some disks take seconds for its thousand files.
fn fast_place() -> &'static str {
    let listed = Command::new("df").args(["-Pk", MEMORY]).output();
    let listed = listed.map(|listed| String::from_utf8_lossy(&listed.stdout).into_owned()).unwrap_or_default();
    let free: Option<u64> =
        listed.lines().nth(1).and_then(|line| line.split_whitespace().nth(3)).and_then(|free| free.parse().ok());
    if free.is_some_and(|free| free >= MEMORY_KB_MIN) { MEMORY } else { DISK }
}

impl Drop for Home {
    fn drop(&mut self) {
        if self.path.exists() {
            let _ = durable_dev::stop(&self.settings());
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// A process that is killed at the latest when its test ends.
pub(crate) struct Owner(Child);

impl Owner {
    pub(crate) fn kill_9(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Ends it in good order.
    pub(crate) fn finish(&mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn kill_9(pid: u32) {
    assert!(Command::new("/bin/sh").args(["-c", "kill -9 \"$0\"", &pid.to_string()]).status().unwrap().success());
}

/// Looks until `fact` holds.
pub(crate) fn wait_until(what: &str, mut fact: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !fact() {
        assert!(Instant::now() < until, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn value(url: &str, sql: &str) -> String {
    durable_dev::sql(url, sql).unwrap()[0][0].clone().unwrap()
}

/// The socket directory in a URL of ours.
pub(crate) fn sockets(url: &str) -> PathBuf {
    let (_, host) = url.split_once("host=").unwrap();
    Path::new(host.split('&').next().unwrap()).to_owned()
}

/// The user id of this process.
pub(crate) fn uid() -> u32 {
    let said = Command::new("id").arg("-u").output().unwrap().stdout;
    String::from_utf8(said).unwrap().trim().parse().unwrap()
}
