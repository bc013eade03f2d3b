//! Declaring the queues that a worker serves, and saying where workers disagree.

use super::Plan;
use crate::error::Error;
use crate::store::link::{Links, call_patiently};
use crate::store::queue::declare_queues;

impl Plan {
    /// Write down the limits of the queues that it serves.
    pub(crate) async fn declare_queues(&self, links: &Links) -> Result<(), Error> {
        let queues = &self.settings.serves;
        if queues.is_empty() {
            return Ok(());
        }
        let others = call_patiently!(links, "declare queues", connection =>
            declare_queues(connection, &self.sql, queues, false))?;
        for (name, theirs) in others {
            let Some(own) = queues.iter().find(|queue| *queue.name == *name) else { continue };
            tracing::warn!(
                queue = name,
                declared = own.limits(),
                others = theirs,
                "workers that run have declared other limits for this queue, which those of this worker replace: those count \
                 that were declared last. In a roll that passes; otherwise let all workers declare the same"
            );
        }
        Ok(())
    }
}
