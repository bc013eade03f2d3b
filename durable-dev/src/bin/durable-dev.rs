//! The command line of `durable-dev`: for people who want to look into the database behind an example or a test.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use durable_dev::{Database, Error, Settings};

const USAGE: &str = "\
usage: durable-dev COMMAND

  url [NAME]      print the URL of the database NAME (default: dev), made if it is missing,
                  and keep its cluster up until standard input ends or Ctrl-C
  psql [NAME]     open psql in it
  status          the private clusters of this user
  stop            stop them, even those in use
  resolve         which server would be used, and why";

/// What `psql` becomes on its second entry.
const DEAF_PSQL: &str = "psql-without-interrupt";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = Settings::from_env().and_then(|settings| match arguments.as_slice() {
        ["url"] => url(&settings, "dev"),
        ["url", name] => url(&settings, name),
        ["psql"] => deaf_psql("dev"),
        ["psql", name] => deaf_psql(name),
        [DEAF_PSQL, name] => psql(&settings, name),
        ["status"] => status(&settings),
        ["stop"] => stop(&settings),
        ["resolve"] => resolve(&settings),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    });
    done.unwrap_or_else(|error| {
        eprintln!("durable-dev: {error}");
        ExitCode::FAILURE
    })
}

fn url(settings: &Settings, name: &str) -> Result<ExitCode, Error> {
    let database = Database::with(settings, name)?;
    println!("{}", database.url());
    // Its end, or a failure to read it, is the end of the wish.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    Ok(ExitCode::SUCCESS)
}

/// Ctrl-C cancels a statement in psql and must not end us, who keep the cluster up. The standard library cannot
/// ignore it, but what a shell ignores stays ignored in what it becomes; psql makes its own choice again.
fn deaf_psql(name: &str) -> Result<ExitCode, Error> {
    let failed = |source| Error::Io { act: "start /bin/sh".to_owned(), source };
    let own = std::env::current_exe().map_err(failed)?;
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "trap '' INT; exec \"$0\" \"$@\""]).arg(own).args([DEAF_PSQL, name]);
    Err(failed(shell.exec()))
}

fn psql(settings: &Settings, name: &str) -> Result<ExitCode, Error> {
    let database = Database::with(settings, name)?;
    let ended = Command::new("psql").arg(database.url()).status();
    let ended = ended.map_err(|source| Error::Io { act: "start psql".to_owned(), source })?;
    Ok(ExitCode::from(u8::try_from(ended.code().unwrap_or(1)).unwrap_or(1)))
}

fn status(settings: &Settings) -> Result<ExitCode, Error> {
    for cluster in durable_dev::status(settings)? {
        let state = cluster.pid.map_or_else(|| "down".to_owned(), |pid| format!("up, pid {pid}, {}", cluster.url));
        println!("{} PostgreSQL {} in {}: {state}", cluster.kind, cluster.major, cluster.directory.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn stop(settings: &Settings) -> Result<ExitCode, Error> {
    for cluster in durable_dev::stop(settings)? {
        println!("stopped {} PostgreSQL {}", cluster.kind, cluster.major);
    }
    Ok(ExitCode::SUCCESS)
}

fn resolve(settings: &Settings) -> Result<ExitCode, Error> {
    let explanation = durable_dev::explain(settings)?;
    for step in &explanation.steps {
        println!("- {step}");
    }
    match explanation.chosen {
        Some(chosen) => println!("=> {chosen}"),
        None => println!("=> no server; install PostgreSQL, or set DATABASE_URL"),
    }
    Ok(ExitCode::SUCCESS)
}
