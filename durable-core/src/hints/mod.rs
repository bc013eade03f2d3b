//! Hints between processes, by NOTIFY and LISTEN: what one of them has to say reaches the others within milliseconds,
//! and nobody has to poll for it in earnest. Hints only: whatever is lost is found by the next poll.
//!
//! What is said and what it wakes is `wake`; how it reads as text is `words`. A NOTIFY takes a lock of the whole cluster
//! until its commit, so it is never part of another transaction, has a connection of its own that does not wait for
//! the disk, and is sent once for all that there is to say in twenty milliseconds.

mod words;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::error::Error;
use crate::store::hint::{self as store, Ear};
use crate::store::link::{Commits, Links, call};
use crate::store::sql::Sql;
use crate::wake::{Wake, Word};
use words::Text;

/// The shortest time between two NOTIFYs of one process.
const TELL_EVERY: Duration = Duration::from_millis(20);

/// How long a process goes on listening that has no worker and nobody who waits any more.
const LINGER: Duration = Duration::from_secs(30);

/// The shortest and the longest pause before a lost listener is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(50);
const REOPEN_AFTER_MAX: Duration = Duration::from_secs(30);

/// A process's mouth and ear. Both go when this is dropped.
pub(crate) struct Hints {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

struct Shared {
    wake: Arc<Wake>,
    /// Those that this process takes workflows from.
    queues: HashSet<String>,
    channel: String,
    /// By which a process knows its own words.
    speaker: u64,
    sql: Arc<Sql>,
    factory: PgPool,
    links: Links,
    /// How many want others to be listened to.
    attending: watch::Sender<usize>,
}

impl Hints {
    /// Speak and listen for `wake`, unless it tells others nothing: then neither.
    pub(crate) fn start(wake: &Arc<Wake>, queues: HashSet<String>, sql: &Arc<Sql>, factory: &PgPool) -> Arc<Self> {
        let shared = Arc::new(Shared {
            wake: wake.clone(),
            queues,
            channel: words::channel(&sql.schema),
            speaker: fastrand::u64(..),
            sql: sql.clone(),
            factory: factory.clone(),
            links: Links::new("hints", factory.clone(), sql.clone(), Commits::Asynchronous, 1, None),
            attending: watch::Sender::new(0),
        });
        let mut tasks = Vec::new();
        if wake.outbox().is_some() {
            tasks.push(tokio::spawn(speak(shared.clone())));
            tasks.push(tokio::spawn(listen(shared.clone())));
        }
        Arc::new(Self { shared, tasks })
    }

    /// Listen to others for as long as the answer is held.
    pub(crate) fn attend(&self) -> Attention {
        self.shared.attending.send_modify(|count| *count += 1);
        Attention(self.shared.clone())
    }

    /// Tell others before this process goes: answers when it is told.
    pub(crate) async fn tell_now(&self, word: &Word) {
        if self.shared.wake.outbox().is_none() {
            return;
        }
        let mut text = Text::new(self.shared.speaker);
        if text.add(word) {
            self.shared.tell(&text).await;
        }
    }
}

impl Drop for Hints {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Somebody's interest in what other processes say.
pub(crate) struct Attention(Arc<Shared>);

impl Drop for Attention {
    fn drop(&mut self) {
        self.0.attending.send_modify(|count| *count -= 1);
    }
}

impl Shared {
    async fn tell(&self, text: &Text) {
        let mut told = self.tell_once(text).await;
        // The server may have closed a connection that was idle for long.
        if told.as_ref().is_err_and(Error::is_transient) {
            told = self.tell_once(text).await;
        }
        if let Err(error) = told {
            tracing::debug!(%error, "other processes will find by polling what they were not told");
        }
    }

    async fn tell_once(&self, text: &Text) -> Result<(), Error> {
        call!(self.links, "tell other processes", connection =>
            store::hint(connection, &self.sql, &self.channel, text.as_str()))
    }
}

/// Say what there is to say: the first word at once, and what comes after it together. Nothing otherwise.
async fn speak(shared: Arc<Shared>) {
    let Some(outbox) = shared.wake.outbox() else { return };
    loop {
        let mut text = Text::new(shared.speaker);
        outbox.take(|word| text.add(word)).await;
        let began_at = Instant::now();
        shared.tell(&text).await;
        tokio::time::sleep_until(began_at + TELL_EVERY).await;
    }
}

/// Listen while somebody wants it.
async fn listen(shared: Arc<Shared>) {
    let mut attending = shared.attending.subscribe();
    loop {
        // An error cannot be: the sender is held here.
        drop(attending.wait_for(|count| *count > 0).await);
        tokio::select! {
            () = hear(&shared) => {}
            () = unattended(&mut attending) => {}
        }
    }
}

/// Wait until nobody has wanted to listen for a while.
async fn unattended(attending: &mut watch::Receiver<usize>) {
    loop {
        drop(attending.wait_for(|count| *count == 0).await);
        if tokio::time::timeout(LINGER, attending.wait_for(|count| *count > 0)).await.is_err() {
            return;
        }
    }
}

/// Pass on what others say, for ever. Whatever happens to the connection, another one is opened.
async fn hear(shared: &Shared) {
    let (mut pause, mut failing) = (REOPEN_AFTER, false);
    loop {
        let opened_at = Instant::now();
        let error = match Ear::open(&shared.factory, &shared.sql, &shared.channel).await {
            Ok(mut ear) => {
                failing = false;
                // What was said while nobody listened.
                shared.wake.now();
                pass_on(shared, &mut ear).await
            }
            Err(error) => error,
        };
        let error = Error::database("listen to other processes", &error);
        if std::mem::replace(&mut failing, true) {
            tracing::debug!(%error, "cannot listen to other processes yet; polls go on");
        } else {
            tracing::info!(%error, "lost the connection that listens to other processes; polls go on");
        }
        // A connection that stood for a while was lost by accident.
        pause = if opened_at.elapsed() > REOPEN_AFTER_MAX { REOPEN_AFTER } else { pause };
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(REOPEN_AFTER_MAX);
    }
}

async fn pass_on(shared: &Shared, ear: &mut Ear<'_>) -> sqlx::Error {
    loop {
        match ear.next().await {
            Ok(text) => {
                for word in words::words(&text, shared.speaker) {
                    shared.wake.heard(&word, &shared.queues);
                }
            }
            Err(error) => return error,
        }
    }
}
