//! Histories of workflows that have continued as new: the records of a generation have lanes of their own.

use super::{History, Slot};
use crate::id::body_lane;

impl History {
    /// That of a generation. What earlier ones have left counts as nothing, also where it is read later.
    pub(crate) fn of_generation(mut self, generation: i32) -> Self {
        if generation == 0 {
            return self;
        }
        self.root = body_lane(generation);
        let strange: Vec<_> = self.slots.keys().filter(|at| !at.is_in(&self.root)).cloned().collect();
        for at in strange {
            if let Some(Slot { record: Some(record), .. }) = self.slots.remove(&at) {
                self.unload(&record);
            }
        }
        self
    }
}
