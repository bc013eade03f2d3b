//! Every statement of the library as it stands in its file, with the types and plausible values of its parameters, for those who look at
//! how it is planned.

use std::path::Path;

/// Rows in a batch.
const BATCH: usize = 500;

/// The parameters of each statement, in order, as `parameter` knows them.
pub(super) const PARAMETERS: &[(&str, &str)] = &[
    ("append", "owner buckets ids integers texts bigints bigints bigints json_arrays json_arrays"),
    ("applied", ""),
    ("apply", "integer text"),
    ("ask_limit", "name owner bigint integer integer bigint integer double"),
    ("ask_schedule", "id text bigint ids times"),
    ("attributes", "bucket id"),
    ("cancel", "id text owner"),
    ("cancel_lost", "owner bucket id integer buckets ids"),
    ("change_deadline", "id ms text owner"),
    ("claim", "owner queue names versions limit names bucket time time"),
    (
        "commit_apart",
        "owner buckets ids integers lanes integers texts texts jsons jsons jsons jsons times bigints \
         buckets ids integers texts bigints waits jsons jsons buckets ids",
    ),
    (
        "commit",
        "owner buckets ids integers lanes integers texts texts jsons jsons jsons jsons times bigints \
         buckets ids integers texts bigints waits jsons jsons bigints rows",
    ),
    ("continue_as_new", "owner bucket id integer integer json limit"),
    ("counts", ""),
    ("deadlines", "limit"),
    ("declare_limits", "texts integers integers integers bigints jsons flag"),
    (
        "declare_queues",
        "texts integers integers integers integers bigints integers bigints flags jsons flag integers integers",
    ),
    ("disputed_limits", "names texts limit"),
    ("events", "buckets ids texts"),
    ("expire", "id"),
    ("settle", "owner bucket id integer lane integer text text json json json json time ms text json json"),
    ("ended_children", "owner buckets ids integers integers buckets ids bigint"),
    ("fence", "limit"),
    ("fenced", "owner"),
    ("forget", "bucket id limit"),
    ("fork", "bucket id integer bucket id integer text json integers jsons text"),
    ("hand_back", "owner"),
    ("heartbeat", "owner ms"),
    ("hint", "text text"),
    ("history", "buckets ids lanes integers limit limit"),
    ("input", "bucket id"),
    ("inspect", "bucket id"),
    ("let_go", "owner buckets ids integers"),
    ("list_newest", "status name no_text no_time no_time no_text buckets no_time no_text limit"),
    (
        "list_newest_with",
        "statuses name no_text no_time no_time no_text buckets no_time no_text limit name word no_text no_text few few few",
    ),
    (
        "list_oldest_with",
        "statuses name no_text no_time no_time no_text buckets no_time no_text limit name no_text word no_text few few few",
    ),
    ("list_oldest", "status name no_text no_time no_time no_text buckets no_time no_text limit"),
    ("look_at_events", "owner buckets ids integers buckets ids texts"),
    ("mark_stands", "text"),
    ("migrate_lock", "text"),
    ("migrated", ""),
    ("newer_code", "text integer text"),
    ("note_code", "queue names versions names flag limit"),
    ("operate", "text ids text owner"),
    ("operate_schedule", "text id text"),
    ("operations", "bucket id limit"),
    ("owned", "owner"),
    ("pause_limit", "text flag"),
    ("pause_queue", "text flag"),
    ("ping", ""),
    ("publish", "owner buckets ids integers lanes integers texts jsons"),
    ("limits", "limit"),
    ("queues", "limit"),
    ("remove_limit", "text"),
    ("remove_queue", "text"),
    ("reap", "limit integer owners"),
    ("receive", "owner buckets ids integers lanes integers texts flags bigints"),
    ("record", "owner bucket id integer lane integer text text json json json json time ms"),
    ("recorded", "bucket id lane integer owner"),
    ("register", "owner ms text integer queue names names versions names texts"),
    ("release", "owner bucket id integer json integer"),
    ("release_starts", "integer"),
    ("schedules", "id limit"),
    ("schedules_due", "limit"),
    ("send", "bucket id topic text json"),
    ("server", ""),
    ("set_attribute", "bucket id text json text bigint"),
    ("set_schedule", "id name integer json queue bucket json ms text text ms ms text text integer ms ms text"),
    ("silence", "ids"),
    ("start", "buckets ids texts integers texts buckets bigints jsons owners integers integers bigints texts"),
    ("start_all", "owner buckets ids texts integers texts buckets bigints jsons flags"),
    (
        "start_attributed",
        "buckets ids texts integers texts buckets bigints jsons owners integers integers bigints buckets ids texts jsons texts texts",
    ),
    (
        "start_children",
        "owner buckets ids integers integers buckets ids lanes integers buckets ids texts integers texts buckets bigints \
         jsons flags jsons bigints texts",
    ),
    (
        "start_children_apart",
        "owner buckets ids integers integers buckets ids lanes integers buckets ids texts integers texts buckets bigints \
         jsons flags jsons bigints texts",
    ),
    ("start_keyed", "id name integer queue text integer json ms json text text ms text ms ms integer"),
    ("start_subscribers", "text json id"),
    ("set_subscriptions", "texts texts integers texts buckets texts flag"),
    ("subscriptions", "limit"),
    ("unsubscribe", "text text"),
    ("start_new", "owner buckets ids texts integers texts buckets bigints jsons flags"),
    ("steps", "bucket id"),
    ("steps_after", "bucket id lane integer limit limit"),
    ("stopped", "owner ids"),
    ("stopping", "bucket id"),
    ("streams", "buckets ids texts bigints limit limit"),
    ("tick_schedule", "id bigint time time ids times bigint time time"),
    ("transact", "owner text bucket id lane integer text json json json json ms integer"),
    ("undo_of_dead", "owners"),
    ("unknown", "queue names versions"),
    ("block", "owner bucket id integer json text"),
    ("queue_metrics", "name"),
    ("unserved", "limit"),
    ("timeline", "bucket id time integer lane integer bigint limit bigint"),
];

/// A script of several statements, which cannot be prepared; every migration runs it.
pub(super) const SCRIPT: &str = "migrations";

/// A statement of the library, as it stands in its file.
pub(super) struct Statement {
    pub(super) name: String,
    pub(super) text: String,
}

/// All of them, by name.
pub(super) fn statements() -> Vec<Statement> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../durable-core/src/store/sql");
    let mut statements: Vec<Statement> = std::fs::read_dir(&directory)
        .expect("the directory of the statements")
        .map(|entry| {
            let path = entry.expect("an entry of the directory").path();
            let name = path.file_stem().expect("a file has a name").to_string_lossy().into_owned();
            Statement { name, text: std::fs::read_to_string(&path).expect("a statement") }
        })
        .collect();
    statements.sort_by(|a, b| a.name.cmp(&b.name));
    statements
}

/// The type and a plausible value of a parameter.
pub(super) fn parameter(kind: &str) -> (String, String) {
    let many = |of: &dyn Fn(usize) -> String| format!("'{{{}}}'", (1..=BATCH).map(of).collect::<Vec<_>>().join(","));
    let (sql_type, value) = match kind {
        "owner" => ("uuid", "md5('worker1')::uuid".to_owned()),
        "bucket" => ("smallint", "7".to_owned()),
        "id" => ("text", "'w-7'".to_owned()),
        "lane" => ("text", "''".to_owned()),
        "queue" => ("text", "'default'".to_owned()),
        "topic" => ("text", "'decision'".to_owned()),
        "text" => ("text", "'running'".to_owned()),
        "status" => ("text", "'suspended'".to_owned()),
        "name" => ("text", "'name-1'".to_owned()),
        "word" => ("text", "'s7'".to_owned()),
        "few" => ("text[]", "'{a,b}'".to_owned()),
        "statuses" => ("text[]", "'{suspended,failed}'".to_owned()),
        "no_text" => ("text", "null".to_owned()),
        "no_time" => ("timestamptz", "null".to_owned()),
        "json" => ("text", "'{}'".to_owned()),
        "integer" => ("integer", "1".to_owned()),
        "bigint" | "ms" => ("bigint", "1000".to_owned()),
        "double" => ("double precision", "10".to_owned()),
        "limit" => ("bigint", "256".to_owned()),
        "flag" => ("boolean", "true".to_owned()),
        "names" => ("text[]", "'{name-1,name-2,name-3}'".to_owned()),
        "versions" => ("integer[]", "'{1,1,1}'".to_owned()),
        "buckets" => ("smallint[]", many(&|n| (n % 64).to_string())),
        "ids" => ("text[]", many(&|n| format!("w-{n}"))),
        "lanes" => ("text[]", many(&|_| "\"\"".to_owned())),
        "texts" => ("text[]", many(&|_| "word".to_owned())),
        "jsons" => ("text[]", many(&|_| "1".to_owned())),
        "json_arrays" => ("text[]", many(&|_| "[1]".to_owned())),
        "integers" => ("integer[]", many(&|n| n.to_string())),
        "bigints" => ("bigint[]", many(&|_| "1000".to_owned())),
        "rows" => ("text[]", many(&|n| format!("\"(0,{n})\""))),
        "waits" => ("text[]", many(&|_| "[]".to_owned())),
        "owners" => ("uuid[]", many(&|n| format!("00000000-0000-0000-0000-{n:012}"))),
        "time" => ("timestamptz", "now()".to_owned()),
        "flags" => ("boolean[]", many(&|_| "true".to_owned())),
        "times" => ("timestamptz[]", many(&|_| "NULL".to_owned())),
        other => panic!("no such parameter: {other}"),
    };
    (sql_type.to_owned(), value)
}
