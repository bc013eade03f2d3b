//! Every statement of the library, with the schema's name filled in once.

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

use crate::error::Error;
use crate::id::{DEFAULT_SCHEMA, check_schema};
use crate::sabotage::{Sabotage, sabotaged};

macro_rules! statements {
    ($($name:ident)*) => {
        /// Every statement, ready to send.
        pub(crate) struct Sql {
            pub(crate) schema: String,
            $(pub(crate) $name: SqlStr,)*
        }

        impl Sql {
            /// The statements for a schema, whose name is checked here: it is the only text that is ever
            /// put into SQL, everything else is bound.
            pub(crate) fn new(schema: &str) -> Result<Self, Error> {
                check_schema(schema)?;
                let mut all = Self {
                    schema: schema.to_owned(),
                    $($name: in_schema(include_str!(concat!("sql/", stringify!($name), ".sql")), schema),)*
                };
                if sabotaged(Sabotage::ForgetsTheOwner) {
                    all.forget_the_owner();
                }
                Ok(all)
            }
        }
    };
}

statements! {
    append applied apply attributes block cancel cancel_lost change_deadline claim commit commit_apart continue_as_new counts deadlines declare_queues
    ended_children events expire fence fenced forget fork hand_back heartbeat hint history input inspect let_go
    list_newest list_newest_with list_oldest list_oldest_with look_at_events mark_stands migrate_lock migrated
    migrations newer_code note_code operate operations owned pause_queue ping publish queues reap receive record recorded register
    remove_queue    release release_starts send server set_attribute settle silence start start_all start_attributed start_children
    start_children_apart start_keyed start_new steps steps_after stopped stopping streams transact undo_of_dead unknown queue_metrics unserved
    ask_schedule operate_schedule schedules schedules_due set_schedule tick_schedule timeline
    set_subscriptions start_subscribers subscriptions unsubscribe
    ask_limit declare_limits disputed_limits limits pause_limit remove_limit
}

/// A text of ours for another schema: objects are written `durable.x`, the schema itself only where it is made.
pub(crate) fn in_schema(text: &'static str, schema: &str) -> SqlStr {
    if schema == DEFAULT_SCHEMA {
        return SqlStr::from_static(text);
    }
    let made = text.replace("schema if not exists durable;", &format!("schema if not exists \"{schema}\";"));
    AssertSqlSafe(made.replace("durable.", &format!("\"{schema}\"."))).into_sql_str()
}

impl Sql {
    /// For a test: leave out of the committer's statements what makes them do nothing under another owner.
    fn forget_the_owner(&mut self) {
        for statement in [&mut self.commit, &mut self.commit_apart, &mut self.record, &mut self.settle] {
            let mut text = statement.as_str().to_owned();
            for (fence, none) in [
                ("w.owner is not distinct from $1", "$1 is not null"),
                ("w.claims = g.claims", "g.claims is not null"),
                ("w.claims = b.claims", "b.claims is not null"),
                ("w.claims = $4", "$4 is not null"),
            ] {
                text = text.replace(fence, none);
            }
            *statement = AssertSqlSafe(text).into_sql_str();
        }
    }
}
