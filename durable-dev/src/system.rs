//! What the operating system knows: who we are, whom a server runs as, private directories, processes, programs.
//!
//! Nothing here knows about PostgreSQL, except that it refuses to run as root.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::Error;

/// The user id of this process.
pub(crate) fn uid() -> Result<u32, Error> {
    static UID: OnceLock<u32> = OnceLock::new();
    if let Some(uid) = UID.get() {
        return Ok(*uid);
    }
    // The standard library has no getuid; /proc says it on Linux for nothing, id(1) everywhere.
    let uid = match fs::metadata("/proc/self") {
        Ok(own) => own.uid(),
        Err(_) => {
            let text = output("ask `id` for the user id", Command::new("/usr/bin/id").arg("-u"))?;
            text.trim().parse().map_err(|_| Error::setting("`id -u`", format!("it printed {text:?}")))?
        }
    };
    Ok(*UID.get_or_init(|| uid))
}

/// Whom servers run as: ourselves, or for root an unprivileged user, because PostgreSQL refuses to run as root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ServerUser {
    pub(crate) uid: u32,
    /// Set when we are root and have to become somebody else.
    drop_to_gid: Option<u32>,
}

impl ServerUser {
    pub(crate) fn find() -> Result<ServerUser, Error> {
        let uid = uid()?;
        if uid != 0 {
            return Ok(ServerUser { uid, drop_to_gid: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").map_err(Error::io("read /etc/passwd"))?;
        ["postgres", "_postgres", "nobody"]
            .iter()
            .find_map(|name| account(&passwd, name))
            .map(|(uid, gid)| ServerUser { uid, drop_to_gid: Some(gid) })
            .ok_or_else(|| {
                Error::setting("root to run PostgreSQL", "it refuses, and /etc/passwd has neither postgres nor nobody")
            })
    }

    /// A command that runs as this user, away from our terminal and our PG* variables.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        // The directory we are in may be closed to that user; macOS needs a locale before it starts threads.
        command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null()).process_group(0);
        if let Some(gid) = self.drop_to_gid {
            command.gid(gid).uid(self.uid);
        }
        command
    }

    /// A directory that only this user can enter, made when it is missing. One that is somebody else's is refused:
    /// in a shared directory such as /tmp another user could have put it there first.
    pub(crate) fn private_directory(&self, path: &Path) -> Result<(), Error> {
        if make_directory(path, 0o700)? && self.drop_to_gid.is_some() {
            chown(path, Some(self.uid), self.drop_to_gid).map_err(Error::path("give away", path))?;
        }
        require_owner(path, self.uid)
    }

    /// The first ancestor of `path` that keeps this user out, if any.
    pub(crate) fn barrier<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.drop_to_gid?;
        path.ancestors().skip(1).find(|ancestor| {
            fs::metadata(ancestor).is_ok_and(|found| found.mode() & 0o001 == 0 && found.uid() != self.uid)
        })
    }
}

fn account(passwd: &str, name: &str) -> Option<(u32, u32)> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Where everything of this crate is kept.
pub(crate) fn home(chosen: Option<&Path>) -> Result<PathBuf, Error> {
    let uid = uid()?;
    let user = ServerUser::find()?;
    let home = match chosen {
        Some(path) => std::path::absolute(path).map_err(Error::path("find", path))?,
        // Not in root's home, which is closed to the user the server runs as.
        None if uid == 0 => shared_home(uid),
        None => match std::env::var_os("XDG_DATA_HOME").filter(|home| !home.is_empty()) {
            Some(data) => PathBuf::from(data).join("durable"),
            None => match std::env::home_dir().filter(|home| home.is_dir()) {
                Some(home) => home.join(".local/share/durable"),
                None => shared_home(uid),
            },
        },
    };
    // Root's own home of clusters may be crossed, not listed: the cluster below it belongs to somebody else.
    let mode = if uid == 0 { 0o711 } else { 0o700 };
    if let Some(parent) = home.parent() {
        fs::create_dir_all(parent).map_err(Error::path("make", parent))?;
    }
    make_directory(&home, mode)?;
    require_owner(&home, uid)?;
    if let Some(barrier) = user.barrier(&home.join("cluster")) {
        let why = format!("PostgreSQL cannot run as root, and {} is closed to other users", barrier.display());
        return Err(Error::setting(format!("{} for clusters", home.display()), why));
    }
    Ok(home)
}

fn shared_home(uid: u32) -> PathBuf {
    PathBuf::from(format!("/var/tmp/durable-dev-{uid}"))
}

/// Makes `path`; false when it was there.
fn make_directory(path: &Path, mode: u32) -> Result<bool, Error> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // A umask may have taken away more than we wanted.
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::path("open up", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::path("make", path)(error)),
    }
}

fn require_owner(path: &Path, uid: u32) -> Result<(), Error> {
    // Not following links: a link is somebody's choice of a place that we did not make.
    let found = fs::symlink_metadata(path).map_err(Error::path("look at", path))?;
    let why = if !found.is_dir() {
        "it is not a directory".to_owned()
    } else if found.uid() != uid {
        format!("it belongs to user {}, not to user {uid}", found.uid())
    } else if found.mode() & 0o022 != 0 {
        "other users can write to it".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::setting(path.display().to_string(), format!("{why}; remove it, or set DURABLE_DEV_HOME")))
}

/// What became of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Gone,
    /// Dead, but nobody has asked for its exit code: its pid still answers.
    Zombie,
    Alive {
        program: String,
    },
}

pub(crate) fn process(pid: u32) -> Process {
    if Path::new("/proc/self/stat").exists() {
        return fs::read_to_string(format!("/proc/{pid}/stat")).map_or(Process::Gone, |stat| from_proc(&stat));
    }
    let Ok(listed) = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output() else {
        return Process::Gone;
    };
    let line = String::from_utf8_lossy(&listed.stdout);
    match line.trim().split_once(char::is_whitespace) {
        None => Process::Gone,
        Some((state, _)) if state.starts_with('Z') => Process::Zombie,
        Some((_, program)) => Process::Alive { program: program.trim().to_owned() },
    }
}

fn from_proc(stat: &str) -> Process {
    // The program's name stands in parentheses and may hold parentheses itself: the last one closes it.
    let Some((head, tail)) = stat.rsplit_once(')') else {
        return Process::Gone;
    };
    if tail.trim_start().starts_with(['Z', 'X']) {
        return Process::Zombie;
    }
    Process::Alive { program: head.split_once('(').map_or("", |(_, name)| name).to_owned() }
}

/// The children of a process.
pub(crate) fn children(parent: u32) -> Result<Vec<u32>, Error> {
    let Ok(entries) = fs::read_dir("/proc") else {
        let listed = output("list processes", Command::new("ps").args(["-A", "-o", "pid=,ppid="]))?;
        let pairs = listed.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u32>().ok());
            Some((numbers.next()??, numbers.next()??))
        });
        return Ok(pairs.filter(|(_, of)| *of == parent).map(|(pid, _)| pid).collect());
    };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter(|pid| parent_of(*pid) == Some(parent)).collect())
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Sends a signal by its name, through the shell's own `kill`: the standard library can only kill, and only children.
/// Processes that are gone already are fine.
pub(crate) fn send(signal: &str, pids: &[u32]) -> Result<(), Error> {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "for pid; do kill -s \"$0\" \"$pid\" 2>/dev/null; done; exit 0", signal]);
    shell.args(pids.iter().map(u32::to_string));
    output(&format!("send {signal} to a server"), &mut shell).map(drop)
}

/// The program of that name on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| is_program(path))
}

pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

/// Runs a command to its end and returns what it printed; `act` names it in the error.
pub(crate) fn output(act: &str, command: &mut Command) -> Result<String, Error> {
    let done = command.stdin(Stdio::null()).output().map_err(Error::io(act))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = [done.stderr, done.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    Err(Error::Program { act: act.to_owned(), output: format!("{}\n{}", done.status, tail(&said, 20)) })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// FNV-1a, 128 bits. Names made from it are shared by processes that different compilers built, so it must never
/// change, which the standard library's hashers do not promise.
pub(crate) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u128 {
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    let mut add = |byte: u8| hash = (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
    for part in parts {
        // The length separates the parts: ("ab", "c") and ("a", "bc") differ.
        part.len().to_le_bytes().iter().chain(part).for_each(|byte| add(*byte));
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_from_passwd() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:9:9::/:/bin/sh\npostgres:x:101:104::/:/bin/sh\n";
        assert_eq!(account(passwd, "postgres"), Some((101, 104)));
        assert_eq!(account(passwd, "nobody"), None);
    }

    #[test]
    fn a_zombie_is_not_alive() {
        assert_eq!(from_proc("12 (postgres) Z 1 12"), Process::Zombie);
        assert_eq!(from_proc("12 (a) b) S 1 12"), Process::Alive { program: "a) b".to_owned() });
        assert!(matches!(process(std::process::id()), Process::Alive { .. }));
        assert_eq!(process(i32::MAX as u32), Process::Gone);
    }

    #[test]
    fn fingerprints_separate_their_parts() {
        let of = |parts: &[&str]| fingerprint(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
    }
}
