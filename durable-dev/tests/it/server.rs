//! A server of one's own: it can be killed, and keeps what it promised.

use std::process::Stdio;

use durable_dev::{Server, ServerOptions, Settings};

use crate::support::{Home, kill_9, sockets, value, wait_until};

fn start(home: &Home) -> Server {
    Server::start(ServerOptions::new().settings(home.settings()).set("deadlock_timeout", "10ms")).unwrap()
}

#[test]
fn a_killed_server_restarts_with_what_was_committed() {
    let home = Home::new();
    let mut server = start(&home);
    let url = server.url("postgres");
    assert_eq!(value(&url, "show deadlock_timeout"), "10ms");
    assert!(server.programs().join("pg_ctl").is_file());
    for round in 0..3 {
        durable_dev::sql(&url, &format!("create table t{round} ()")).unwrap();
        server.kill().unwrap();
        assert_eq!(server.pid(), None);
        assert!(durable_dev::sql(&url, "select 1").is_err());
        server.restart().unwrap();
    }
    assert_eq!(value(&url, "select count(*) from pg_tables where schemaname = 'public'"), "3");
}

#[test]
fn a_server_killed_in_the_middle_of_a_statement_restarts() {
    let home = Home::new();
    let mut server = start(&home);
    let url = server.url("postgres");
    let busy = std::thread::spawn({
        let url = url.clone();
        move || durable_dev::sql(&url, "create table t as select generate_series(1, 100000000)")
    });
    wait_until("the statement is under way", || {
        value(&url, "select count(*) from pg_stat_activity where query like 'create table t%'") == "1"
    });
    server.kill().unwrap();
    assert!(busy.join().unwrap().is_err());
    server.restart().unwrap();
    assert_eq!(value(&url, "select count(*) from pg_tables where tablename = 't'"), "0");
}

#[test]
fn a_stopped_server_restarts() {
    let home = Home::new();
    let mut server = start(&home);
    durable_dev::sql(&server.url("postgres"), "create table t ()").unwrap();
    server.stop().unwrap();
    server.restart().unwrap();
    let (url, before) = (server.url("postgres"), server.pid());
    server.restart().unwrap();
    assert_ne!(server.pid(), before);
    assert_eq!(value(&url, "select count(*) from pg_tables where tablename = 't'"), "1");
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let home = Home::new();
    let server = start(&home);
    let (url, pid) = (server.url("postgres"), server.pid().unwrap());
    let directory = sockets(&url).parent().unwrap().to_owned();
    assert!(directory.join("data/base").is_dir());
    drop(server);
    assert!(!directory.exists());
    wait_until("the server is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// Not a fact: the process that the next test kills. It needs a process with a `Server`, and this binary is one.
#[test]
#[ignore = "waits to be killed by another test"]
fn owner_of_a_server() {
    let settings = Settings::from_env().unwrap();
    let server = Server::start(ServerOptions::new().settings(settings)).unwrap();
    println!("{}", server.url("postgres"));
    std::thread::park();
}

#[test]
fn a_server_stops_when_its_owner_dies_by_kill_9() {
    let home = Home::new();
    let mut owner = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::owner_of_a_server", "--ignored", "--nocapture"])
        .env("DURABLE_DEV_HOME", &home.path)
        .env_remove("DATABASE_URL")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let directory = home.path.join(format!("server-{}-0", owner.id()));
    let socket = directory.join("sock/.s.PGSQL.5432");
    wait_until("the server is up", || socket.exists());
    kill_9(owner.id());
    owner.wait().unwrap();
    wait_until("the server and its files are gone", || !directory.exists());
}

#[test]
fn a_server_that_cannot_start_shows_its_log() {
    let home = Home::new();
    let options = ServerOptions::new().settings(home.settings()).set("shared_buffers", "a lot");
    let error = Server::start(options).err().unwrap().to_string();
    assert!(error.contains("did not start") && error.contains("shared_buffers"), "{error}");
}
