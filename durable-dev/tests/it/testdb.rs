//! Test databases: copies of their template, apart from each other, gone with their process.

use durable_dev::{Settings, Template, TestDb};

use crate::support::{Home, value};

fn template() -> Template {
    Template::new(
        "Shop!",
        &["create table orders (id int); insert into orders values (7)", "create table bills (id int)"],
    )
}

const OURS: &str = "select count(*) from pg_database where datname like 'durable_test_%'";

#[test]
fn a_test_database_is_a_copy_of_its_template_and_of_no_other() {
    let home = Home::new();
    let (one, two) = (TestDb::with(&home.settings(), &template()), TestDb::with(&home.settings(), &template()));
    let (one, two) = (one.unwrap(), two.unwrap());
    durable_dev::sql(one.url(), "delete from orders").unwrap();
    assert_eq!(value(one.url(), "select count(*) from orders"), "0");
    assert_eq!(value(two.url(), "select count(*) from orders"), "1");
    assert_eq!(value(two.url(), "select current_database()"), two.name());
    assert_eq!(value(two.url(), "show fsync"), "off");
    let templates = "select string_agg(datname, ' ') from pg_database where datistemplate and not datallowconn";
    assert!(value(two.url(), templates).contains("durable_tmpl_shop__"));

    let other = Template::new("shop", &["create table orders (id text)"]);
    let other = TestDb::with(&home.settings(), &other).unwrap();
    assert_eq!(value(other.url(), "select pg_typeof(id) from (select max(id) as id from orders) o"), "text");
}

#[test]
fn old_templates_of_a_label_are_forgotten() {
    let home = Home::new();
    let held = TestDb::with(&home.settings(), &template()).unwrap();
    for number in 0..9 {
        let scripts = [format!("create table t{number} ()")];
        TestDb::with(&home.settings(), &Template::new("old", &scripts)).unwrap();
    }
    let of = |label| format!("select count(*) from pg_database where datname like 'durable_tmpl_{label}%'");
    assert_eq!(value(held.url(), &of("old")), "6");
    assert_eq!(value(held.url(), &of("shop")), "1");
}

#[test]
fn a_template_is_built_once_however_many_ask_for_it() {
    let home = Home::new();
    let slow = Template::new("slow", &["select pg_sleep(0.2)", "create table orders (id int)"]);
    let dbs: Vec<TestDb> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..6).map(|_| scope.spawn(|| TestDb::with(&home.settings(), &slow).unwrap())).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    for db in &dbs {
        assert_eq!(value(db.url(), "select count(*) from orders"), "0");
    }
    // A second building would have begun by dropping the first, or failed at its name.
    assert_eq!(value(dbs[0].url(), "select count(*) from pg_database where datname like 'durable_tmpl_%'"), "1");
}

#[test]
fn a_half_built_template_is_built_anew() {
    let home = Home::new();
    let db = TestDb::with(&home.settings(), &template()).unwrap();
    let name = value(db.url(), "select datname from pg_database where datname like 'durable_tmpl_%'");
    // What a builder leaves that was killed between the first statement and the last.
    for sql in [
        format!("alter database {name} is_template false"),
        format!("drop database {name}"),
        format!("create database {name} template template0"),
    ] {
        durable_dev::sql(db.url(), &sql).unwrap();
    }
    // Another process does not remember that it was finished.
    let db = TestDb::with(&home.settings().database_url(db.url()), &template()).unwrap();
    assert_eq!(value(db.url(), "select count(*) from orders"), "1");
}

#[test]
fn a_template_that_somebody_dropped_is_built_anew() {
    let home = Home::new();
    let db = TestDb::with(&home.settings(), &template()).unwrap();
    let name = value(db.url(), "select datname from pg_database where datname like 'durable_tmpl_%'");
    durable_dev::sql(db.url(), &format!("alter database {name} is_template false")).unwrap();
    durable_dev::sql(db.url(), &format!("drop database {name}")).unwrap();
    let db = TestDb::with(&home.settings(), &template()).unwrap();
    assert_eq!(value(db.url(), "select count(*) from orders"), "1");
}

#[test]
fn a_script_that_fails_is_named() {
    let home = Home::new();
    let broken = Template::new("shop", &["create table orders (id int)", "create tabel bills ()"]);
    let error = TestDb::with(&home.settings(), &broken).err().unwrap();
    assert_eq!(error.code(), Some("42601"));
    assert!(error.to_string().contains("apply script 2 of the template shop"), "{error}");
}

#[test]
fn a_dropped_value_drops_its_database_even_in_use() {
    let home = Home::new();
    let (stays, goes) = (TestDb::with(&home.settings(), &template()), TestDb::with(&home.settings(), &template()));
    let (stays, goes) = (stays.unwrap(), goes.unwrap());
    let url = goes.url().to_owned();
    let busy = std::thread::spawn(move || durable_dev::sql(&url, "select pg_sleep(60)"));
    crate::support::wait_until("the session is busy", || {
        value(stays.url(), "select count(*) from pg_stat_activity where query like 'select pg_sleep%'") == "1"
    });
    drop(goes);
    assert!(busy.join().unwrap().is_err());
    assert_eq!(value(stays.url(), OURS), "1");
}

#[test]
fn a_database_of_a_failed_test_is_kept() {
    let home = Home::new();
    let stays = TestDb::with(&home.settings(), &template()).unwrap();
    let settings = home.settings();
    let failed = std::thread::spawn(move || {
        let _db = TestDb::with(&settings, &template()).unwrap();
        std::panic::resume_unwind(Box::new("the test failed"));
    });
    assert!(failed.join().is_err());
    assert_eq!(value(stays.url(), OURS), "2");
}

#[test]
fn databases_of_dead_processes_are_dropped() {
    let home = Home::new();
    let living = TestDb::with(&home.settings(), &template()).unwrap();
    // No session holds the mark 0000002a, so its process is gone. It may even have had a pid that lives.
    let dead = format!("durable_test_p{}_0000002a_0", std::process::id());
    durable_dev::sql(living.url(), &format!("create database {dead}")).unwrap();
    durable_dev::sql(living.url(), "create database durable_test_of_somebody").unwrap();
    // The same server by another way is what another process is: a newcomer with a mark of its own.
    let newcomer: Settings = home.settings().database_url(living.url());
    let newcomer = TestDb::with(&newcomer, &template()).unwrap();
    let left = "select string_agg(datname, ' ' order by oid) from pg_database where datname like 'durable_test_%'";
    let expected = format!("{} durable_test_of_somebody {}", living.name(), newcomer.name());
    assert_eq!(value(newcomer.url(), left), expected);
}

#[test]
fn test_databases_are_made_anew_after_the_cluster_was_killed() {
    let home = Home::new();
    let db = TestDb::with(&home.settings(), &template()).unwrap();
    crate::support::kill_9(home.server_pid().unwrap());
    // A session of the killed server may answer for a last moment.
    crate::support::wait_until("a test database is there to stay", || {
        let again = TestDb::with(&home.settings(), &template()).unwrap();
        durable_dev::sql(again.url(), "select * from orders").is_ok_and(|rows| rows.len() == 1)
    });
    drop(db);
}
