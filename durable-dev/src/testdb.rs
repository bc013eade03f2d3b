//! A database per test, copied from a template that is built once per server.
//!
//! Names say whose a database is: `durable_test_p<pid>_<mark>_<n>`. The mark is a random number that its process holds
//! as an advisory lock for as long as it lives. That a process is gone is therefore known to the server, also when the
//! process ran on another machine or was killed, and the next process that comes drops what it left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::access::{Access, locked};
use crate::cluster::Kind;
use crate::session::{Session, ident, literal};
use crate::{Error, Settings, system};

/// First keys of our advisory locks: marks of processes, and templates being built.
const MARK_LOCKS: i32 = 0x6475_7261;
const TEMPLATE_LOCKS: i32 = 0x6475_7262;
/// Leftovers dropped by one process, so that the first test does not wait for last night's thousand.
const SWEEP_MAX: usize = 64;
/// Templates kept per label: those of a few branches. The oldest go when a new one is built.
const TEMPLATES_KEPT: usize = 6;
/// PostgreSQL cuts longer names.
const LABEL_MAX: usize = 24;

/// What a test database begins with: SQL scripts, applied once per server and content.
///
/// ```
/// let template = durable_dev::Template::new("shop", &[
///     "create table orders (id bigint primary key)",
///     "insert into orders values (1)",
/// ]);
/// ```
#[derive(Debug, Clone)]
pub struct Template {
    label: String,
    scripts: Vec<String>,
    fingerprint: u128,
}

impl Template {
    /// A template for these scripts, in this order. Each script is sent as a whole and is one transaction, so it may
    /// hold many statements, but not `CREATE INDEX CONCURRENTLY` and its kind. `label` stands in the database's name.
    pub fn new<S: AsRef<str>>(label: &str, scripts: &[S]) -> Template {
        let plain = |c: char| {
            if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }
        };
        Template {
            label: label.chars().map(plain).take(LABEL_MAX).collect(),
            scripts: scripts.iter().map(|script| script.as_ref().to_owned()).collect(),
            fingerprint: system::fingerprint(scripts.iter().map(|script| script.as_ref().as_bytes())),
        }
    }

    fn prefix(&self) -> String {
        format!("durable_tmpl_{}_", self.label)
    }

    /// The major version is part of it because a server may be upgraded with its databases.
    fn database(&self, major: u32) -> String {
        format!("{}{major}_{:016x}", self.prefix(), self.fingerprint as u64)
    }
}

/// A database of one test: a fresh copy of a [`Template`], dropped with the value.
///
/// It is kept when the test panics, to be looked at, until the next process makes its first test database.
pub struct TestDb {
    name: String,
    url: String,
    access: Arc<Access>,
}

impl TestDb {
    /// Copies `template`, about 30 ms on a private cluster. The first call ever starts the cluster, and the first for
    /// these scripts builds the template.
    ///
    /// With `DATABASE_URL` set it is a database of that server, whose user needs `CREATEDB`.
    ///
    /// # Errors
    /// There is no server, the server refuses, or a script of the template fails.
    ///
    /// ```no_run
    /// use durable_dev::{Template, TestDb};
    ///
    /// let db = TestDb::create(&Template::new("shop", &["create table orders (id bigint)"]))?;
    /// println!("{} is at {}", db.name(), db.url());
    /// # Ok::<(), durable_dev::Error>(())
    /// ```
    pub fn create(template: &Template) -> Result<TestDb, Error> {
        TestDb::with(&Settings::from_env()?, template)
    }

    /// As [`TestDb::create`], with settings of one's own.
    ///
    /// # Errors
    /// As [`TestDb::create`].
    pub fn with(settings: &Settings, template: &Template) -> Result<TestDb, Error> {
        Access::using(settings, Kind::Test, |access| {
            let name = next_name(mark(access)?);
            copy(access, template, &name)?;
            Ok(TestDb { url: access.url(&name), name, access: access.clone() })
        })
    }

    /// The URL for a driver.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("durable-dev: the database of the failed test is kept for now: {}", self.url);
            return;
        }
        // When it does not work, the next process does it.
        let _ = self.access.with_session(|session| drop_database(session, &self.name));
    }
}

fn drop_database(session: &mut Session, name: &str) -> Result<(), Error> {
    // FORCE: a test's pool may still be closing its connections.
    let sql = format!("drop database if exists {} with (force)", ident(name));
    session.query(&format!("drop the database {name}"), &sql).map(drop)
}

fn next_name(mark: i32) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("durable_test_p{}_{mark:08x}_{number}", std::process::id())
}

fn copy(access: &Access, template: &Template, name: &str) -> Result<(), Error> {
    access.with_session(|session| {
        let major = session.major()?;
        let from = template.database(major);
        if !locked(&access.templates).contains(&from) {
            build(access, session, template, &from)?;
            locked(&access.templates).insert(from.clone());
        }
        match copy_finished(session, major, &from, name) {
            // Invalid catalog name: somebody dropped the template that we remember.
            Err(error) if error.code() == Some("3D000") => {
                build(access, session, template, &from)?;
                copy_finished(session, major, &from, name)
            }
            answer => answer,
        }
    })
}

fn copy_finished(session: &mut Session, major: u32, from: &str, name: &str) -> Result<(), Error> {
    // Copying through the log needs no checkpoint, which would make all other sessions wait. Before 15 there was no
    // choice.
    let strategy = if major >= 15 { " strategy wal_log" } else { "" };
    let sql = format!("create database {} template {}{strategy}", ident(name), ident(from));
    session.query(&format!("make the test database {name}"), &sql).map(drop)
}

/// Builds the template unless it is finished. Other processes that need it wait at the lock.
fn build(access: &Access, session: &mut Session, template: &Template, name: &str) -> Result<(), Error> {
    if finished(session, name)? == Some(true) {
        return Ok(());
    }
    let act = format!("build the template {name}");
    let key = system::fingerprint([name.as_bytes()]) as u32 as i32;
    session.query(&act, &format!("select pg_catalog.pg_advisory_lock({TEMPLATE_LOCKS}, {key})"))?;
    let built = build_locked(access, session, template, name, &act);
    let unlocked = session.query(&act, &format!("select pg_catalog.pg_advisory_unlock({TEMPLATE_LOCKS}, {key})"));
    built.and(unlocked.map(drop))
}

fn build_locked(
    access: &Access,
    session: &mut Session,
    template: &Template,
    name: &str,
    act: &str,
) -> Result<(), Error> {
    match finished(session, name)? {
        Some(true) => return Ok(()),
        // Whoever built it died on the way.
        Some(false) => drop_database(session, name)?,
        None => {}
    }
    // From template0: what somebody put into template1 of a shared server is not part of the scripts.
    session.query(act, &format!("create database {} template template0", ident(name)))?;
    let mut inside = access.session(Some(name))?;
    for (at, script) in template.scripts.iter().enumerate() {
        inside.query(&format!("apply script {} of the template {}", at + 1, template.label), script)?;
    }
    drop(inside);
    // Both at once is what makes it finished. Without connections no session can be in the way of a copy.
    session.query(act, &format!("alter database {} with is_template true allow_connections false", ident(name)))?;
    forget_old_templates(session, template)
}

/// None: there is no such database.
fn finished(session: &mut Session, name: &str) -> Result<Option<bool>, Error> {
    let sql = format!(
        "select datistemplate and not datallowconn from pg_catalog.pg_database where datname = {}",
        literal(name)
    );
    Ok(session.value("look for a template", &sql)?.map(|flag| flag == "t"))
}

fn forget_old_templates(session: &mut Session, template: &Template) -> Result<(), Error> {
    // Any major version: the number that follows the label is not digits when the label is only the start of another.
    let pattern = format!("^{}[0-9]+_[0-9a-f]{{16}}$", template.prefix());
    let sql = format!(
        "select datname from pg_catalog.pg_database where datname ~ {} and datistemplate order by oid desc offset {TEMPLATES_KEPT}",
        literal(&pattern)
    );
    for row in session.query("look for old templates", &sql)? {
        let Some(Some(name)) = row.into_iter().next() else {
            continue;
        };
        // One that is being copied at this moment stays until the next time.
        let plain = format!("alter database {} with is_template false", ident(&name));
        let _ = session.query("forget an old template", &plain).and_then(|_| drop_database(session, &name));
    }
    Ok(())
}

/// The lock that shows the server that this process lives, and the session that holds it.
pub(crate) struct Mark {
    number: i32,
    session: Session,
}

/// The mark of this process, taken at its first test database, after which the leftovers of others are dropped.
fn mark(access: &Access) -> Result<i32, Error> {
    let mut slot = locked(&access.mark);
    if let Some(mark) = slot.as_mut()
        && mark.session.query("ask for a sign of life", "select 1").is_ok()
    {
        return Ok(mark.number);
    }
    let mut session = access.session(None)?;
    let number = loop {
        let number = random();
        if try_mark(&mut session, number)? {
            break number;
        }
    };
    sweep(&mut session)?;
    *slot = Some(Mark { number, session });
    Ok(number)
}

fn try_mark(session: &mut Session, number: i32) -> Result<bool, Error> {
    let sql = format!("select pg_catalog.pg_try_advisory_lock({MARK_LOCKS}, {number})");
    Ok(session.value("mark this process as alive", &sql)?.as_deref() == Some("t"))
}

/// Positive, so that its eight hexadecimal digits are read back as the same number.
fn random() -> i32 {
    use std::hash::{BuildHasher, RandomState};
    (RandomState::new().hash_one(std::process::id()) >> 33) as i32
}

/// Drops databases whose process is gone: the one whose mark can be taken.
fn sweep(session: &mut Session) -> Result<(), Error> {
    let act = "look for databases of processes that are gone";
    let sql = "select datname, substring(datname from '_([0-9a-f]{8})_[0-9]+$') from pg_catalog.pg_database \
               where datname ~ '^durable_test_p[0-9]+_[0-9a-f]{8}_[0-9]+$' order by oid";
    let mut dropped = 0;
    let mut mine: Option<(i32, bool)> = None;
    for row in session.query(act, sql)? {
        let [Some(name), Some(mark)] = row.as_slice() else {
            continue;
        };
        let Ok(mark) = i32::from_str_radix(mark, 16) else {
            continue;
        };
        let taken = match mine {
            Some((last, taken)) if last == mark => taken,
            _ => try_mark(session, mark)?,
        };
        mine = Some((mark, taken));
        if !taken || dropped == SWEEP_MAX {
            continue;
        }
        // Two sweeps can meet at a database of another user, which neither may drop.
        dropped += usize::from(drop_database(session, name).is_ok());
    }
    if dropped > 0 {
        // No autovacuum on test clusters, and this catalog is read at every connection.
        session.query(act, "vacuum pg_catalog.pg_database")?;
    }
    Ok(())
}
