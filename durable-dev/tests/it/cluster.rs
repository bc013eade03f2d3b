//! The shared cluster: one for all, gone with the last, back after anything that kills it.

use std::os::unix::fs::MetadataExt;

use durable_dev::Database;

use crate::support::{Home, kill_9, sockets, uid, value, wait_until};

#[test]
fn two_starters_share_one_cluster() {
    let home = Home::new();
    let pids: Vec<String> = std::thread::scope(|scope| {
        // Processes rather than threads: those of one process share more than the cluster.
        let starters: Vec<_> = (0..3).map(|_| scope.spawn(|| home.owner())).collect();
        let owners: Vec<_> = starters.into_iter().map(|starter| starter.join().unwrap()).collect();
        let pid = "select pg_read_file('postmaster.pid')";
        owners.iter().map(|(_, url)| value(url, pid).lines().next().unwrap().to_owned()).collect()
    });
    assert_eq!(pids, vec![home.server_pid().unwrap().to_string(); 3]);
}

#[test]
fn data_survives_the_end_of_the_cluster() {
    let home = Home::new();
    let database = Database::with(&home.settings(), "shop").unwrap();
    durable_dev::sql(database.url(), "create table orders (id int); insert into orders values (7)").unwrap();
    drop(database);
    wait_until("the cluster stops", || home.server_pid().is_none());
    let database = Database::with(&home.settings(), "shop").unwrap();
    assert_eq!(value(database.url(), "select id from orders"), "7");
    assert_eq!(value(database.url(), "show fsync"), "on");
}

#[test]
fn a_cluster_stops_when_its_owner_dies_by_kill_9() {
    let home = Home::new();
    let (mut owner, url) = home.owner();
    let pid = home.server_pid().unwrap();
    owner.kill_9();
    wait_until("the cluster stops", || durable_dev::sql(&url, "select 1").is_err());
    wait_until("the server is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_cluster_stays_while_one_of_its_users_lives() {
    let home = Home::new();
    let (mut first, _) = home.owner();
    let (mut second, url) = home.owner();
    let pid = home.server_pid();
    first.kill_9();
    // The third comes and goes after the first is gone: the supervisor has since counted at least twice.
    let (mut third, _) = home.owner();
    third.finish();
    assert_eq!(value(&url, "select pg_sleep(1)"), "");
    assert_eq!(home.server_pid(), pid);
    second.finish();
    wait_until("the cluster stops", || home.server_pid().is_none());
}

#[test]
fn newcomers_find_a_server_however_close_to_its_end_they_come() {
    let home = Home::new();
    // Each comes at another moment around the decision to stop.
    for moment in 0..5 {
        let database = Database::with(&home.settings(), "shop").unwrap();
        assert_eq!(value(database.url(), "select 1"), "1");
        drop(database);
        std::thread::sleep(crate::support::LINGER + std::time::Duration::from_millis(moment * 10));
    }
}

#[test]
fn a_cluster_restarts_after_kill_9() {
    let home = Home::new();
    let (_owner, url) = home.owner();
    durable_dev::sql(&url, "create table orders (id int); insert into orders values (7)").unwrap();
    kill_9(home.server_pid().unwrap());
    let (_other, url) = home.owner();
    assert_eq!(value(&url, "select id from orders"), "7");
}

#[test]
fn a_cluster_restarts_after_kill_9_of_its_supervisor() {
    let home = Home::new();
    let (mut owner, _) = home.owner();
    let server = home.server_pid().unwrap();
    // The supervisor is two shells: the parent of the server, and the watcher, another child of that parent.
    let Some(supervisor) = parent(server) else {
        return eprintln!("skipped: no /proc here");
    };
    let watcher = processes().find(|pid| *pid != server && parent(*pid) == Some(supervisor)).unwrap();
    kill_9(watcher);
    kill_9(supervisor);
    owner.kill_9();
    let (_other, url) = home.owner();
    assert_eq!(value(&url, "select 1"), "1");
    assert_ne!(home.server_pid().unwrap(), server, "a server without a supervisor would stay for ever");
}

#[test]
fn a_pid_file_of_a_living_stranger_does_not_stop_a_start() {
    let home = Home::new();
    let (mut owner, url) = home.owner();
    let data = sockets(&url).parent().unwrap().join("data");
    let file = data.join("postmaster.pid");
    let text = std::fs::read_to_string(&file).unwrap();
    kill_9(home.server_pid().unwrap());
    owner.kill_9();
    wait_until("the server is gone", || durable_dev::sql(&url, "select 1").is_err());
    // The pid was given to somebody else: to us.
    let (_, rest) = text.split_once('\n').unwrap();
    std::fs::write(&file, format!("{}\n{rest}", std::process::id())).unwrap();
    let (_other, url) = home.owner();
    assert_eq!(value(&url, "select 1"), "1");
}

#[test]
fn a_start_that_was_killed_during_initdb_leaves_nothing_in_the_way() {
    let home = Home::new();
    let (mut owner, url) = home.owner();
    let data = sockets(&url).parent().unwrap().join("data");
    owner.finish();
    wait_until("the cluster stops", || home.server_pid().is_none() && !data.join("postmaster.pid").exists());
    std::fs::remove_dir_all(data.join("base")).unwrap();
    std::fs::rename(&data, data.with_extension("tmp")).unwrap();
    let (_owner, url) = home.owner();
    assert_eq!(value(&url, "select 1"), "1");
}

#[test]
fn long_socket_paths_fall_back_to_a_short_directory() {
    let home = Home::named(&"-long".repeat(20));
    let database = Database::with(&home.settings(), "shop").unwrap();
    assert_eq!(value(database.url(), "select 1"), "1");
    let sockets = sockets(database.url());
    assert!(sockets.join(".s.PGSQL.5432").as_os_str().len() < 104, "{}", sockets.display());
    assert_eq!(std::fs::metadata(&sockets).unwrap().mode() & 0o777, 0o700);
    drop(database);
    wait_until("the cluster stops", || home.server_pid().is_none() && !sockets.join(".s.PGSQL.5432").exists());
    std::fs::remove_dir(sockets).unwrap();
}

#[test]
fn only_the_user_of_a_cluster_can_reach_it() {
    let home = Home::new();
    let database = Database::with(&home.settings(), "shop").unwrap();
    assert_eq!(value(database.url(), "show listen_addresses"), "");
    let found = std::fs::metadata(sockets(database.url())).unwrap();
    assert_eq!(found.mode() & 0o777, 0o700);
    assert_ne!(found.uid(), 0, "PostgreSQL does not run as root");
    if uid() != 0 {
        assert_eq!(found.uid(), uid());
    }
}

#[test]
fn a_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    std::fs::create_dir(&home.path).unwrap();
    std::fs::set_permissions(&home.path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = Database::with(&home.settings(), "shop").err().unwrap().to_string();
    assert!(error.contains("other users can write to it"), "{error}");
}

fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(1)?.parse().ok()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
