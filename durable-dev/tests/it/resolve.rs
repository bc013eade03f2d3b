//! Which server is used, and what is said when there is none.

use durable_dev::{Database, Error, Server, ServerOptions, Settings, Template, TestDb};

use crate::support::{Home, value};

#[test]
fn a_given_url_is_used_as_it_is() {
    let url = "postgres://somebody@db.example/shop?sslmode=require";
    let database = Database::with(&Settings::new().database_url(url), "other").unwrap();
    assert_eq!(database.url(), url);
}

#[test]
fn missing_programs_give_the_commands() {
    let home = Home::new();
    let settings = home.settings().search_only([]);
    let Err(error) = Database::with(&settings, "shop") else { panic!("there is nothing to start") };
    assert!(matches!(error, Error::NoServer { .. }));
    let said = error.to_string();
    for part in ["DATABASE_URL is not set", "fetching is switched off", "install", "docker run"] {
        assert!(said.contains(part), "{said}");
    }
    assert_eq!(durable_dev::explain(&settings).unwrap().chosen, None);
}

#[test]
fn a_cluster_that_is_up_is_used_before_anything_is_looked_for() {
    let home = Home::new();
    let (_owner, url) = home.owner();
    let blind = home.settings().search_only([]);
    let explanation = durable_dev::explain(&blind).unwrap();
    assert!(explanation.steps.contains(&"the private dev cluster is up".to_owned()), "{explanation:?}");
    let again = Database::with(&blind, "shop").unwrap();
    assert_eq!(again.url(), url);
}

#[test]
fn the_program_explains_its_choice() {
    let home = Home::new();
    let said = home.program(&["resolve"]).output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    assert!(said.contains("no private dev cluster is up") && said.contains("=> a private cluster of"), "{said}");
    let said = home.program(&["resolve"]).env("DATABASE_URL", "postgres://db.example:6432/x").output().unwrap();
    assert!(String::from_utf8(said.stdout).unwrap().contains("=> the server at db.example:6432"));
}

#[test]
fn a_variable_that_makes_no_sense_is_refused() {
    let home = Home::new();
    let said = home.program(&["resolve"]).env("DURABLE_DEV_FETCH", "maybe").output().unwrap();
    assert!(!said.status.success());
    assert!(String::from_utf8(said.stderr).unwrap().contains("cannot use DURABLE_DEV_FETCH=maybe"));
}

/// Our own protocol speaks no passwords; `psql` does.
#[test]
fn a_server_with_a_password_is_served_through_psql() {
    if std::process::Command::new("psql").arg("--version").output().is_err() {
        return eprintln!("skipped: no psql here");
    }
    let home = Home::new();
    std::fs::create_dir(&home.path).unwrap();
    let access = home.path.join("access.conf");
    std::fs::write(&access, "local all postgres trust\nlocal all all scram-sha-256\n").unwrap();
    let options = ServerOptions::new().settings(home.settings()).set("hba_file", access.to_str().unwrap());
    let server = Server::start(options).unwrap();
    durable_dev::sql(&server.url("postgres"), "create role me login createdb password 'p:w'").unwrap();
    let url = server.url("postgres").replace("user=postgres", "user=me");
    let with_password = Settings::new().database_url(format!("{url}&password=p%3Aw"));

    let template = Template::new("shop", &["create table orders (id int);\ninsert into orders values (7), (null)"]);
    let db = TestDb::with(&with_password, &template).unwrap();
    assert!(db.url().ends_with("&password=p%3Aw"));
    let rows = durable_dev::sql(db.url(), "select id, 'x' from orders order by id").unwrap();
    assert_eq!(rows, [[Some("7".to_owned()), Some("x".to_owned())], [None, Some("x".to_owned())]]);
    assert_eq!(durable_dev::sql(db.url(), "select 1/0").unwrap_err().code(), Some("22012"));
    assert_eq!(durable_dev::sql(db.url(), "selekt; select 1").unwrap_err().code(), Some("42601"));

    let wrong = TestDb::with(&Settings::new().database_url(format!("{url}&password=no")), &template);
    let said = wrong.err().unwrap().to_string();
    assert!(said.contains("password authentication failed"), "{said}");
    drop(db);
    let left = "select count(*) from pg_database where datname like 'durable_test_%'";
    assert_eq!(value(&server.url("postgres"), left), "0");
}
