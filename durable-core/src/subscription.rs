//! Subscriptions: which workflows an event starts that an application publishes. Publishing is `publish`.

use crate::client::{Builder, Durable};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::id::check_text;
use crate::info::SubscriptionInfo;
use crate::store::link::{Links, call_patiently};
use crate::store::subscription::{self as store, Subscribed};
use crate::workflow::{Registry, Workflow, WorkflowFn};

/// Subscriptions in one answer.
const SUBSCRIPTIONS_MAX: i64 = 10_000;

#[doc = include_str!("../docs/subscribe.md")]
#[must_use = "a subscription does nothing until it is given to Builder::subscribe or Durable::subscribe"]
#[derive(Clone, Debug)]
pub struct Subscription {
    event: &'static str,
    workflow: &'static str,
    version: i32,
    queue: Option<String>,
    priority: i16,
    partition_by: Option<String>,
}

impl Subscription {
    /// The event starts this workflow, whose only parameter is the event's value.
    pub fn new<T, F: WorkflowFn<(T,)>>(event: Event<T>, workflow: F) -> Self {
        // Only its type is asked.
        let _ = workflow;
        Self {
            event: event.key(),
            workflow: <F::Workflow as Workflow>::NAME,
            version: <F::Workflow as Workflow>::VERSION,
            queue: None,
            priority: 0,
            partition_by: None,
        }
    }

    /// Start it in this queue. Default: the queue of the builder.
    pub fn queue(mut self, queue: impl Into<String>) -> Self {
        self.queue = Some(queue.into());
        self
    }

    /// Lower goes first within a queue. Default 0.
    pub fn priority(mut self, priority: i16) -> Self {
        self.priority = priority;
        self
    }

    /// Put it into the [partition](crate::Start::partition) that this field of the event's value names, a text or a number; where there is
    /// no such field, or it is null or empty, into the one of those that have none.
    pub fn partition_by(mut self, field: impl Into<String>) -> Self {
        self.partition_by = Some(field.into());
        self
    }

    /// Check everything: nothing is written for what cannot be.
    fn describe(&self, queue: &str) -> Result<Subscribed, Error> {
        let queue = self.queue.as_deref().unwrap_or(queue);
        check_text("event", self.event)?;
        check_text("workflow name", self.workflow)?;
        check_text("queue", queue)?;
        if let Some(field) = &self.partition_by {
            check_text("field that names the partition", field)?;
        }
        Ok(Subscribed {
            event: self.event.to_owned(),
            workflow: self.workflow,
            version: self.version,
            queue: queue.to_owned(),
            priority: self.priority,
            partition_by: self.partition_by.clone(),
        })
    }
}

impl Builder {
    /// Declare a subscription: from the start of this on, the event starts the workflow, whoever publishes it and wherever. One that is as it
    /// was changes nothing, so every process of a fleet may declare it; in a roll-out the last one to start has the last word about
    /// the version and the options. One that was [removed](Durable::unsubscribe) stays so, with a warning. What is not
    /// declared any more stays, because another release may still declare it: remove it.
    pub fn subscribe(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }
}

impl Durable {
    /// Let an event start a workflow from now on, also where that was [removed](Self::unsubscribe).
    ///
    /// # Durability
    ///
    /// One write, durable when this answers `Ok`. It may be repeated.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for names that cannot be, and for more than 1,000 subscriptions of an event; database kinds.
    pub async fn subscribe(&self, subscription: Subscription) -> Result<(), Error> {
        let client = &self.client;
        let given = [subscription.describe(&client.queue)?];
        set(&client.links, &given, true).await.map(drop)
    }

    /// Let an event start a workflow no more, by their names, and say whether it did. What it has started goes on. It
    /// stays removed, whoever [declares](Builder::subscribe) it, so that an older release which is started once more does not bring
    /// it back; [`subscribe`](Self::subscribe) does. Whoever has SQL removes it by
    /// `select durable.unsubscribe('lead.created', 'greet')`.
    ///
    /// # Durability
    ///
    /// One write, durable when this answers `Ok`. A repetition after a lost answer says that it did not.
    ///
    /// # Errors
    ///
    /// [`Usage`](ErrorKind::Usage) for names that cannot be, database kinds.
    pub async fn unsubscribe(&self, event: impl AsRef<str>, workflow: impl AsRef<str>) -> Result<bool, Error> {
        let (client, event, workflow) = (&self.client, event.as_ref(), workflow.as_ref());
        check_text("event", event)?;
        check_text("workflow name", workflow)?;
        let act = format!("unsubscribe {workflow:?} from {event:?}");
        call_patiently!(client.links, &act, connection => store::unsubscribe(connection, &client.sql, event, workflow))
    }

    /// All subscriptions, in the order of events and workflows, also those that were removed; up to 10,000.
    ///
    /// # Errors
    ///
    /// Database kinds.
    pub async fn subscriptions(&self) -> Result<Vec<SubscriptionInfo>, Error> {
        let client = &self.client;
        call_patiently!(client.links, "list subscriptions", connection =>
            store::subscriptions(connection, &client.sql, SUBSCRIPTIONS_MAX))
    }
}

async fn set(links: &Links, given: &[Subscribed], revive: bool) -> Result<Vec<(String, String)>, Error> {
    // A repeat finds them as they should be, and changes nothing.
    let set = call_patiently!(links, "subscribe workflows to events", connection =>
        store::set_subscriptions(connection, &links.sql, given, revive));
    set.map_err(|error| match error.code() {
        Some("54000") => Error::new(ErrorKind::Usage, error.to_string()),
        _ => error,
    })
}

/// Set what a builder declares.
pub(crate) async fn declare(subscriptions: &[Subscription], links: &Links, queue: &str) -> Result<(), Error> {
    if subscriptions.is_empty() {
        return Ok(());
    }
    let given = subscriptions.iter().map(|subscription| subscription.describe(queue)).collect::<Result<Vec<_>, _>>()?;
    for (event, workflow) in set(links, &given, false).await? {
        tracing::warn!(
            event,
            workflow,
            "this subscription is declared, but was removed: the event does not start the workflow; subscribe it with \
             Durable::subscribe, or leave the declaration out"
        );
    }
    Ok(())
}

/// Check what a builder declares, before anything is written. `registry` is that of the worker, if there is to be one.
pub(crate) fn check_declared(
    subscriptions: &[Subscription],
    queue: &str,
    registry: Option<&Registry>,
) -> Result<(), Error> {
    for subscription in subscriptions {
        let Subscription { event, workflow, version, .. } = subscription;
        subscription.describe(queue)?;
        if registry.is_some_and(|registry| !registry.knows(workflow, *version)) {
            return Err(Error::new(
                ErrorKind::Usage,
                format!(
                    "the event {event:?} starts workflow {workflow:?} version {version}, which is not registered: \
                     add .register({workflow})"
                ),
            ));
        }
    }
    let mut names: Vec<_> =
        subscriptions.iter().map(|subscription| (subscription.event, subscription.workflow)).collect();
    names.sort_unstable();
    match names.windows(2).find(|two| two[0] == two[1]) {
        Some(two) => Err(Error::new(
            ErrorKind::Usage,
            format!("the workflow {:?} is subscribed twice to the event {:?}", two[0].1, two[0].0),
        )),
        None => Ok(()),
    }
}
