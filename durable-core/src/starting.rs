//! The act of starting: one statement for one or for thousands, on the caller's transaction or on its own. Those that
//! are not in a caller's transaction go through `starter`.

use std::sync::Arc;
use std::time::Instant;

use sqlx::PgConnection;

use crate::client::Client;
use crate::error::{Error, ErrorKind};
use crate::handle::{Expected, Handle};
use crate::start::IfExists;
use crate::starter::{Answers, StartItem};
use crate::store::claim::Claimed;
use crate::store::start::{self as store, NewWorkflow, StartGroup, Started};
use crate::worker::{Engine, Reserved};

/// Start workflows and give their handles.
pub(crate) async fn start_all<T>(
    client: &Arc<Client>,
    given: Vec<NewWorkflow>,
    policy: IfExists,
    tx: Option<&mut PgConnection>,
) -> Result<Vec<Handle<T>>, Error> {
    let act = match &given[..] {
        [] => return Ok(Vec::new()),
        [one] => format!("start workflow {}", one.id),
        many => format!("start {} workflows", many.len()),
    };
    let (given, answers, expected) = match tx {
        Some(tx) => {
            let answers = in_callers_transaction(tx, client, &given, policy, &act).await?;
            client.due_soon(&given[0].queue, Some((given[0].name, given[0].version)));
            (given, answers, Vec::new())
        }
        None => {
            // On a task of its own: a caller that goes away must not leave behind a workflow that was born
            // running here and that nobody runs.
            let started = tokio::spawn(alone(client.clone(), given, policy, act.clone())).await;
            started.map_err(|_| Error::new(ErrorKind::Unavailable, format!("could not {act}: interrupted")))??
        }
    };
    let handles = handles(client, given, answers, policy, &act)?;
    let mut expected = expected.into_iter();
    Ok(handles.into_iter().map(|handle| handle.expecting(expected.next().flatten())).collect())
}

/// In the caller's transaction: one statement, and its errors are the transaction's.
async fn in_callers_transaction(
    tx: &mut PgConnection,
    client: &Client,
    given: &[NewWorkflow],
    policy: IfExists,
    act: &str,
) -> Result<Answers, Error> {
    let group = [StartGroup { given, policy: policy.as_number() }];
    let mut answers = vec![None; given.len()];
    // Once is enough, but for an id that another transaction committed while this statement waited for it.
    for _ in 0..3 {
        let started = store::start(tx, &client.sql, &group).await.map_err(|e| Error::database(act, &e))?;
        if place(&mut answers, started) {
            break;
        }
    }
    Ok(answers)
}

/// On a connection of the library's own; what is born here is run here.
async fn alone(
    client: Arc<Client>,
    mut given: Vec<NewWorkflow>,
    policy: IfExists,
    act: String,
) -> Result<(Vec<NewWorkflow>, Answers, Vec<Option<Expected>>), Error> {
    let engine = client.engine();
    let enlist = |new: &NewWorkflow| engine.is_some().then(|| Expected::new(&client, &new.id));
    let expected: Vec<_> = given.iter().map(enlist).collect();
    let mut reserved = reserve(engine.as_deref(), &mut given);
    let mut answers = vec![None; given.len()];
    let mut start = StartItem { given, policy };
    loop {
        let Some((asked, started)) = client.starter.write(start).await? else {
            return Err(Error::new(ErrorKind::Unavailable, format!("could not {act}: interrupted")));
        };
        start = asked;
        if place(&mut answers, started) {
            break;
        }
    }
    let given = start.given;
    let mut to_be_claimed = false;
    for (n, (given, answer)) in given.iter().zip(&answers).enumerate() {
        let place = reserved.get_mut(n).and_then(Option::take);
        match (place, answer) {
            (Some(place), Some(answer)) if answer.born_here => place.run(born(given, answer)),
            (_, Some(answer)) => to_be_claimed |= answer.created && given.delay_ms == 0,
            (_, None) => {}
        }
    }
    if to_be_claimed {
        // One call is for one body and one queue.
        client.due(&given[0].queue, Some((given[0].name, given[0].version)));
    }
    let started = |(expected, answer): (Option<Expected>, &Option<Started>)| expected?.started(answer.as_ref()?);
    let expected = expected.into_iter().zip(&answers).map(started).collect();
    Ok((given, answers, expected))
}

/// Reserve places in this process's worker for as many as there is room for.
fn reserve<'e>(engine: Option<&'e Engine>, given: &mut [NewWorkflow]) -> Vec<Option<Reserved<'e>>> {
    let Some(engine) = engine else { return Vec::new() };
    given
        .iter_mut()
        .map(|new| {
            let at_once = new.delay_ms == 0;
            let place = at_once.then(|| engine.reserve(&new.id, new.name, new.version, &new.queue)).flatten();
            new.owner = place.is_some().then_some(engine.owner);
            place
        })
        .collect()
}

/// Put answers into their places, and say whether that is all there is to come. The first answer stands: after
/// a repeated statement a row would look as if it had been there before.
fn place(answers: &mut Answers, started: Answers) -> bool {
    let refused = started.iter().flatten().any(|started| started.refused);
    for (slot, started) in answers.iter_mut().zip(started) {
        if slot.is_none() {
            *slot = started;
        }
    }
    refused || answers.iter().all(Option::is_some)
}

fn handles<T>(
    client: &Arc<Client>,
    given: Vec<NewWorkflow>,
    answers: Answers,
    policy: IfExists,
    act: &str,
) -> Result<Vec<Handle<T>>, Error> {
    for (given, found) in given.iter().zip(&answers) {
        if let Some(found) = found.as_ref().filter(|found| !found.created && !found.born_here) {
            check_existing(given, found, policy)?;
        }
    }
    let handle = |(given, answer): (NewWorkflow, Option<Started>)| {
        let answer = answer.ok_or_else(|| Error::new(ErrorKind::Unavailable, format!("could not {act}: try again")))?;
        let mut handle = Handle::new(client.clone(), given.id);
        handle.existed = !answer.created && !answer.born_here;
        handle.input_differs = !answer.same_input;
        Ok(handle)
    };
    given.into_iter().zip(answers).map(handle).collect()
}

pub(crate) fn check_existing(given: &NewWorkflow, found: &Started, policy: IfExists) -> Result<(), Error> {
    let id = &given.id;
    let conflict = |problem: String| Err(Error::new(ErrorKind::Conflict, problem));
    if let Some((name, version)) = &found.existing
        && (name != given.name || *version != given.version)
    {
        return conflict(format!(
            "the id {id} belongs to workflow {name:?} version {version}, not to {:?} version {}: use another id",
            given.name, given.version
        ));
    }
    match policy {
        IfExists::Return => Ok(()),
        IfExists::ReturnSameInput if found.same_input => Ok(()),
        IfExists::ReturnSameInput => conflict(format!("workflow {id} was started with another input: use another id")),
        IfExists::Refuse => conflict(format!("workflow {id} was started before")),
    }
}

/// A workflow that was born running here, as if it had been claimed.
fn born(given: &NewWorkflow, started: &Started) -> Claimed {
    Claimed {
        id: given.id.clone(),
        name: given.name.to_owned(),
        version: given.version,
        input: given.input.clone(),
        waits: Vec::new(),
        wakes: 0,
        claims: 1,
        created_at: started.created_at,
        seed: None,
        generation: None,
        parent: None,
        ending: None,
        is_limited: false,
        row_at: started.row_at.clone(),
        now: started.created_at,
        seen_at: Instant::now(),
    }
}
