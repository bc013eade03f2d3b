//! Starts with a key, for callers: one workflow of a key at a time, the last of many inputs, many inputs for one workflow.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgConnection;

use crate::client::Client;
use crate::ctx::attempt::WAIT_MAX;
use crate::error::{Error, ErrorKind};
use crate::handle::Handle;
use crate::id::check_text;
use crate::options::millis;
use crate::start::IfExists;
use crate::starting::check_existing;
use crate::store::keyed::{self as store, Came, Key, KeyedStart};
use crate::store::link::call_patiently;
use crate::store::start::{NewWorkflow, Started};
use crate::worker::cut;

/// Inputs of one batch.
const BATCH_MAX: usize = 10_000;

/// What to do with a [deduplicated](crate::Start::deduplicate) start while a workflow of the same key has not ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IfOpen {
    /// Give that one; the handle tells that it existed, and whether its input differs.
    #[default]
    Join,
    /// Refuse, with a [`Conflict`](ErrorKind::Conflict) that names it.
    Refuse,
    /// Cancel it and begin once it has ended, with its undo steps: the two never run at the same time. One that has not begun itself
    /// is cancelled at once.
    Replace,
}

impl IfOpen {
    fn as_str(self) -> &'static str {
        match self {
            IfOpen::Join => "join",
            IfOpen::Refuse => "refuse",
            IfOpen::Replace => "replace",
        }
    }
}

/// How long a [debounced](crate::Start::debounce) start is put off.
///
/// ```
/// use durable::{Debounce, minutes, seconds};
///
/// // Five seconds after the last one, and two minutes after the first at the latest.
/// let debounce = Debounce::new(seconds(5)).max_wait(minutes(2));
/// # let _ = debounce;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Debounce {
    wait: Duration,
    max_wait: Duration,
}

impl Debounce {
    /// Until this long after the last start of the key, by the database's clock: 1 ms or more.
    pub fn new(wait: Duration) -> Self {
        Self { wait, max_wait: WAIT_MAX }
    }

    /// But not longer than this after the first: `wait` or more. Default: for as long as others come.
    pub fn max_wait(mut self, max_wait: Duration) -> Self {
        self.max_wait = max_wait;
        self
    }
}

/// What a [batch](crate::Start::batch) waits for.
///
/// ```
/// use durable::{Batch, seconds};
///
/// // For a hundred inputs, and ten seconds after the first at the longest.
/// let batch = Batch::new(100, seconds(10));
/// # let _ = batch;
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Batch {
    most: usize,
    wait: Duration,
}

impl Batch {
    /// For so many inputs, 1 to 10,000; but not longer than this after the first, by the database's clock: 1 ms or more.
    pub fn new(most: usize, wait: Duration) -> Self {
        Self { most, wait }
    }
}

/// What a start is to do with its key.
#[derive(Clone, Debug)]
pub(crate) enum Keyed {
    Deduplicate { key: String },
    Debounce { key: String, debounce: Debounce },
    Batch { key: String, batch: Batch, inputs: usize },
}

impl Keyed {
    /// Refuse what cannot be; else what the statement takes.
    pub(crate) fn check(&self, new: &NewWorkflow, if_open: IfOpen, has_id: bool) -> Result<Key, Error> {
        let (Self::Deduplicate { key, .. } | Self::Debounce { key, .. } | Self::Batch { key, .. }) = self;
        check_text("key", key)?;
        let usage = |problem: &str| {
            let problem = format!("could not start {:?} with key {key:?}: {problem}", new.name);
            Err(Error::new(ErrorKind::Usage, problem))
        };
        let key = Key { how: "", key: key.clone(), if_open: "join", wait_ms: 0, max_wait_ms: 0, most: 0 };
        let has_delay = new.delay_ms > 0;
        Ok(match self {
            Self::Deduplicate { .. } => Key { how: "deduplicate", if_open: if_open.as_str(), ..key },
            Self::Debounce { debounce: Debounce { wait, max_wait }, .. } => {
                if has_id {
                    return usage("a debounced start has no id of its own: it may become a part of another one");
                }
                if has_delay {
                    return usage("it has a delay and a debounce: give the one or the other");
                }
                if millis(*wait) < 1 || max_wait < wait {
                    return usage("a debounce waits 1 ms or more, and its max_wait is no shorter than that");
                }
                Key { how: "debounce", wait_ms: stored(*wait), max_wait_ms: stored(*max_wait), ..key }
            }
            Self::Batch { batch: Batch { most, wait }, inputs, .. } => {
                if has_delay {
                    return usage("it has a delay and a batch: the batch says how long it waits");
                }
                if !(1..=BATCH_MAX).contains(most) {
                    return usage(&format!("a batch of at most {most}: give 1 to {BATCH_MAX}"));
                }
                if !(1..=*most).contains(inputs) {
                    return usage(&format!(
                        "{inputs} inputs for a batch of at most {most}: give at least 1, and no more than that"
                    ));
                }
                if millis(*wait) < 1 {
                    return usage("a batch waits 1 ms or more: without a wait, start the workflow as it is");
                }
                Key { how: "batch", wait_ms: stored(*wait), most: i32::try_from(*most).unwrap_or(i32::MAX), ..key }
            }
        })
    }
}

fn stored(wait: Duration) -> i64 {
    millis(wait.min(WAIT_MAX))
}

/// Start a workflow with a key, and give the handle of the one that there is then.
pub(crate) async fn start_keyed<T>(
    client: &Arc<Client>,
    new: NewWorkflow,
    key: Key,
    policy: IfExists,
    has_id: bool,
    tx: Option<&mut PgConnection>,
) -> Result<Handle<T>, Error> {
    let act = format!("start {:?} with key {:?}", new.name, key.key);
    let in_tx = tx.is_some();
    let answer = match tx {
        Some(tx) => store::start_keyed(tx, &client.sql, &new, &key).await.map_err(|e| Error::database(&act, &e))?,
        None => call_patiently!(client.links, &act, connection =>
            store::start_keyed(connection, &client.sql, &new, &key))?,
    };
    let answer =
        answer.ok_or_else(|| Error::new(ErrorKind::Database, format!("could not {act}: there was no answer")))?;
    tell(client, &new, &answer, in_tx);
    handle(client, &new, answer, policy, has_id, &act)
}

/// Tell those whom it concerns. What is held back for a time is found by the look for it, which every worker makes.
fn tell(client: &Client, new: &NewWorkflow, answer: &KeyedStart, in_tx: bool) {
    let body = Some((new.name, answer.version));
    if in_tx {
        client.wake.start_is_unseen();
        client.due_soon(&new.queue, body);
        for queue in answer.cut.iter().filter_map(|cut| cut.undo_in.as_ref()) {
            client.due_soon(queue, None);
        }
        return;
    }
    if answer.is_due {
        client.due(&new.queue, body);
    }
    cut::tell(&client.wake, client.engine().as_deref(), &answer.cut);
    client.wake.look_at_schedules();
}

fn handle<T>(
    client: &Arc<Client>,
    new: &NewWorkflow,
    answer: KeyedStart,
    policy: IfExists,
    has_id: bool,
    act: &str,
) -> Result<Handle<T>, Error> {
    let KeyedStart { came, id, same_input, name, version, .. } = answer;
    match came {
        Came::Refused => {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("could not {act}: workflow {id} has that key and has not ended"),
            ));
        }
        // A new id is nobody else's: an earlier try of this very call has started it.
        Came::Existed if !has_id => {}
        Came::Existed => check_existing(new, &Started::existing((name, version), same_input), policy)?,
        Came::Started | Came::Joined => {}
    }
    let mut handle = Handle::new(client.clone(), id);
    handle.existed = !(came == Came::Started || came == Came::Existed && !has_id);
    handle.input_differs = !same_input;
    Ok(handle)
}
