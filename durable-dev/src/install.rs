//! The PostgreSQL programs that are on this machine: where they may be, which of them can be used.
//!
//! Getting them here is `fetch`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;
use crate::system::{self, ServerUser};

/// The oldest PostgreSQL the library supports.
pub(crate) const OLDEST_MAJOR: u32 = 14;

/// One set of programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Installation {
    pub(crate) bin: PathBuf,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Installation {
    /// Looks at one directory. `Ok(None)`: no PostgreSQL there; `Err`: there is one that cannot be used, and why.
    pub(crate) fn at(bin: &Path, user: ServerUser) -> Result<Option<Installation>, String> {
        let postgres = bin.join("postgres");
        if !system::is_program(&postgres) {
            return Ok(None);
        }
        // A link on PATH points to the directory that has the rest.
        let postgres = fs::canonicalize(&postgres).unwrap_or(postgres);
        let bin = postgres.parent().unwrap_or(bin).to_owned();
        for program in ["initdb", "pg_ctl"] {
            if !system::is_program(&bin.join(program)) {
                return Err(format!("{} has no {program}", bin.display()));
            }
        }
        if let Some(barrier) = user.barrier(&postgres) {
            return Err(format!("{}: {} is closed to the user it would run as", bin.display(), barrier.display()));
        }
        let said = system::output("ask PostgreSQL for its version", Command::new(&postgres).arg("--version"))
            .map_err(|error| format!("{}: {error}", bin.display()))?;
        match version(&said) {
            Some((major, _)) if major < OLDEST_MAJOR => {
                Err(format!("{} is PostgreSQL {major}, older than {OLDEST_MAJOR}", bin.display()))
            }
            Some((major, minor)) => Ok(Some(Installation { bin, major, minor })),
            None => Err(format!("{}: cannot read the version in {said:?}", bin.display())),
        }
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Whether the statistics of statements can be preloaded. The contrib package may be missing.
    pub(crate) fn has_pg_stat_statements(&self) -> bool {
        let Some(root) = self.bin.parent() else {
            return false;
        };
        let libraries = ["lib", "lib/postgresql", "lib64/pgsql", "lib/pgsql"].map(|dir| root.join(dir));
        let of_major = root.join(format!("lib/postgresql@{}", self.major));
        libraries
            .iter()
            .chain([&of_major])
            .any(|dir| ["so", "dylib"].iter().any(|kind| dir.join("pg_stat_statements").with_extension(kind).is_file()))
    }
}

impl std::fmt::Display for Installation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PostgreSQL {}.{} in {}", self.major, self.minor, self.bin.display())
    }
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-1)`, `postgres (PostgreSQL) 19beta1`.
fn version(said: &str) -> Option<(u32, u32)> {
    let (_, number) = said.split_once("(PostgreSQL) ")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let major = digits(number);
    let minor = number[major.len()..].strip_prefix('.').map(digits).unwrap_or_default();
    Some((major.parse().ok()?, minor.parse().unwrap_or(0)))
}

/// The usable installations, newest first, and a remark for each that is not usable.
pub(crate) fn find(search: Option<&[PathBuf]>) -> Result<(Vec<Installation>, Vec<String>), Error> {
    let user = ServerUser::find()?;
    let directories = search.map_or_else(usual_directories, <[PathBuf]>::to_vec);
    let mut found: Vec<Installation> = Vec::new();
    let mut remarks = Vec::new();
    for directory in directories {
        match Installation::at(&directory, user) {
            Ok(Some(installation)) if !found.contains(&installation) => found.push(installation),
            Ok(_) => {}
            Err(remark) => remarks.push(remark),
        }
    }
    // Stable: of two equal versions the one on PATH comes first.
    found.sort_by_key(|installation| std::cmp::Reverse((installation.major, installation.minor)));
    Ok((found, remarks))
}

fn usual_directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    for (parent, prefix, below) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql@", "bin"),
        ("/usr/local/opt", "postgresql@", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql@", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        let Ok(entries) = fs::read_dir(parent) else {
            continue;
        };
        let named = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
        directories.extend(named.map(|entry| entry.path().join(below)));
    }
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_printed() {
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-1.pgdg12+1)\n"), Some((15, 18)));
        assert_eq!(version("postgres (PostgreSQL) 19beta1\n"), Some((19, 0)));
        assert_eq!(version("psql 15"), None);
    }
}
