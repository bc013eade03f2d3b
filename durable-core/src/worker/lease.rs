//! The lease of one incarnation: a heartbeat on a thread of its own, so that a busy runtime does not lose it.
//!
//! The thread ends with the incarnation, also when its runtime is dropped: `Heart` is dropped then. It never waits for anything but the database and its timer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::Plan;
use crate::error::{Error, ErrorKind};
use crate::id::{Id, OwnerId};
use crate::options::millis;
use crate::store::Fence;
use crate::store::lease as store;
use crate::store::link::{Links, call, server};

/// The engine's side of a lease.
pub(crate) struct Lease {
    shared: Arc<Shared>,
    /// Cancelled workflows that this worker has to stop.
    stopping: tokio::sync::Mutex<mpsc::Receiver<Vec<Id>>>,
    lost: watch::Receiver<bool>,
}

/// Keeps the lease's thread going while it lives. It belongs to the worker's own task, not to what others hold
/// too: when the runtime is dropped, the lease goes with it.
pub(crate) struct Heart {
    _stop: oneshot::Sender<()>,
}

struct Shared {
    /// Told when the engine gives the lease up.
    given_up: tokio::sync::Notify,
    /// Until when effects may begin, in milliseconds of this process.
    until: AtomicU64,
    ended: AtomicBool,
}

impl Shared {
    fn holds(&self) -> bool {
        !self.ended.load(Ordering::Acquire) && process_ms(Instant::now()) < self.until.load(Ordering::Acquire)
    }
}

/// A cheap look at the lease, for the parts of the worker that outlive a borrow of it.
#[derive(Clone)]
pub(crate) struct LeaseView(Arc<Shared>);

impl LeaseView {
    /// Whether the incarnation is over. Fenced writes may be tried until then: they do nothing if another
    /// worker owns the row, whatever the clock says.
    pub(crate) fn ended(&self) -> bool {
        self.0.ended.load(Ordering::Acquire)
    }
}

impl Lease {
    /// Take a lease, and start the thread that keeps it.
    pub(crate) async fn take(plan: &Arc<Plan>, links: Links, owner: OwnerId) -> Result<(Self, Heart), Error> {
        let shared = Arc::new(Shared {
            given_up: tokio::sync::Notify::new(),
            until: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        });
        let (lost_tx, lost) = watch::channel(false);
        let (stopping_tx, stopping) = mpsc::channel(16);
        let (stop, stopped) = oneshot::channel();
        let (taken_tx, taken) = oneshot::channel();
        let keeper = Keeper { plan: plan.clone(), links, owner, shared: shared.clone(), stopping: stopping_tx };
        std::thread::Builder::new()
            .name("durable-lease".to_owned())
            .spawn(move || keeper.main(taken_tx, stopped, &lost_tx))
            .map_err(|e| Error::new(ErrorKind::Unavailable, format!("could not start the lease's thread: {e}")))?;
        taken.await.map_err(|_| Error::new(ErrorKind::Unavailable, "the lease's thread ended at once"))??;
        let lease = Self { shared, stopping: tokio::sync::Mutex::new(stopping), lost };
        Ok((lease, Heart { _stop: stop }))
    }

    /// Whether effects may begin.
    pub(crate) fn holds(&self) -> bool {
        self.shared.holds()
    }

    /// Whether the incarnation is over.
    pub(crate) fn ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Wait until an effect may begin. `false` when none may any more.
    pub(crate) async fn may_begin(&self) -> bool {
        loop {
            if self.ended() {
                return false;
            }
            if self.holds() {
                return true;
            }
            // The database did not answer for a while. Either the next heartbeat brings the lease back,
            // or it finds that somebody fenced this worker.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn view(&self) -> LeaseView {
        LeaseView(self.shared.clone())
    }

    /// Begin no effect any more, whatever the clock says.
    pub(crate) fn end(&self) {
        self.shared.ended.store(true, Ordering::Release);
    }

    /// End this incarnation: what it holds in memory cannot be trusted any more.
    pub(crate) fn give_up(&self) {
        self.end();
        self.shared.given_up.notify_one();
    }

    /// Wait until the lease is lost for good: somebody fenced this worker, or the server was replaced.
    pub(crate) async fn lost(&self) {
        let mut lost = self.lost.clone();
        tokio::select! {
            // An error means that the thread is gone, and the lease with it.
            lost = lost.wait_for(|lost| *lost) => drop(lost),
            () = self.shared.given_up.notified() => {}
        }
        self.end();
    }

    /// The next cancelled workflows that have to be stopped here.
    pub(crate) async fn next_stopping(&self) -> Vec<Id> {
        match self.stopping.lock().await.recv().await {
            Some(ids) => ids,
            None => std::future::pending().await,
        }
    }
}

struct Keeper {
    plan: Arc<Plan>,
    links: Links,
    owner: OwnerId,
    shared: Arc<Shared>,
    stopping: mpsc::Sender<Vec<Id>>,
}

impl Keeper {
    fn main(
        self,
        taken: oneshot::Sender<Result<(), Error>>,
        stopped: oneshot::Receiver<()>,
        lost: &watch::Sender<bool>,
    ) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => {
                let problem = format!("could not make the lease's runtime: {e}");
                drop(taken.send(Err(Error::new(ErrorKind::Unavailable, problem))));
                return;
            }
        };
        runtime.block_on(async {
            let registered = self.register().await;
            let go_on = registered.is_ok();
            if taken.send(registered).is_err() || !go_on {
                return;
            }
            tokio::select! {
                // The sender is dropped, never used: with its incarnation, or with its runtime.
                _ = stopped => {}
                () = self.keep() => {
                    self.shared.ended.store(true, Ordering::Release);
                    lost.send_replace(true);
                }
            }
        });
    }

    async fn register(&self) -> Result<(), Error> {
        let asked_at = Instant::now();
        let (plan, lease, pid) = (&self.plan, millis(self.plan.settings.lease), std::process::id().cast_signed());
        call!(self.links, "take a lease", connection => store::register(
            connection, &plan.sql, self.owner, lease, (&host(), pid), &plan.sources(), &plan.settings.limits))?;
        self.renewed(asked_at);
        Ok(())
    }

    /// The lease is good until `lease` after the question was asked, by this process's own clock; effects
    /// stop a margin earlier.
    fn renewed(&self, asked_at: Instant) {
        let settings = &self.plan.settings;
        let until = asked_at + (settings.lease - settings.lease_margin());
        self.shared.until.store(process_ms(until), Ordering::Release);
    }

    /// Renew the lease until it is lost.
    async fn keep(&self) {
        let every = self.plan.settings.heartbeat_every();
        // An unanswered heartbeat must not hold up the next try for longer than the lease has left.
        let within = every.max(Duration::from_millis(500));
        let (mut pause, mut failing) = (every, false);
        loop {
            // A heartbeat brings word of what was cancelled, so one is sent at once when there may be any.
            drop(tokio::time::timeout(pause, self.plan.wake.stopping()).await);
            let asked_at = Instant::now();
            let beat = tokio::time::timeout(within, self.beat()).await;
            let problem = match beat {
                Ok(Ok(Fence::Held)) => {
                    self.renewed(asked_at);
                    (pause, failing) = (every, false);
                    continue;
                }
                Ok(Ok(Fence::Lost)) => return,
                Ok(Err(error)) => error,
                Err(_) => Error::no_answer("renew the lease", within),
            };
            // Said once for each outage; the database has its own log.
            if !std::mem::replace(&mut failing, true) {
                tracing::warn!(error = %problem, "worker could not renew its lease and tries again");
            }
            if self.server_was_replaced().await {
                return;
            }
            pause = every / 10;
        }
    }

    async fn beat(&self) -> Result<Fence, Error> {
        let lease_ms = millis(self.plan.settings.lease);
        let (fence, stopping) = call!(self.links, "renew the lease", connection =>
            store::heartbeat(connection, &self.plan.sql, self.owner, lease_ms))?;
        if !stopping.is_empty() {
            // When the engine is behind, the next heartbeat tells it again.
            drop(self.stopping.try_send(stopping));
        }
        Ok(fence)
    }

    /// Whether another server answers than the one that this incarnation's memory belongs to.
    async fn server_was_replaced(&self) -> bool {
        let Some(expected) = self.links.expected() else { return false };
        let fresh = async {
            let mut connection = self.plan.factory.acquire().await?.detach();
            server(&mut connection, &self.plan.sql).await
        };
        match tokio::time::timeout(Duration::from_secs(2), fresh).await {
            Ok(Ok(server)) => server.identity != *expected,
            Ok(Err(_)) | Err(_) => false,
        }
    }
}

/// Milliseconds since this process first asked, plus one so that zero is always past.
fn process_ms(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = *START.get_or_init(Instant::now);
    u64::try_from(at.saturating_duration_since(start).as_millis()).unwrap_or(u64::MAX - 1) + 1
}

fn host() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = file.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "unknown".to_owned() } else { name.chars().take(255).collect() }
}
