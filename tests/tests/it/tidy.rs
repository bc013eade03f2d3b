//! Reads the house itself: what is agreed about files, layers and statements, and no compiler checks.
//!
//! What the statements cost is `plans` and `budgets`; style inside a function is clippy's and rustfmt's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Functions that may be longer, and why that is better there.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Imports against the order of the rooms, and why.
const AGAINST_THE_ORDER: &[(&str, &str, &str)] =
    &[("probe", "testing", "the hook of a crash test in the code that it tests; nothing without the feature")];

/// A file of the project.
struct File {
    /// Its path from the root of the project, with `/`.
    path: String,
    text: String,
}

impl File {
    /// Its lines that are not comments.
    fn code(&self) -> impl Iterator<Item = &str> {
        self.text.lines().filter(|line| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files whose names end so, except what is built and what is hidden.
fn files(under: &str, ending: &str) -> Vec<File> {
    fn walk(directory: &Path, ending: &str, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("a directory of the project") {
            let entry = entry.expect("an entry of a directory");
            let (name, kind) = (entry.file_name(), entry.file_type().expect("the type of a file"));
            let name = name.to_string_lossy();
            if kind.is_dir() && !name.starts_with('.') && name != "target" {
                walk(&entry.path(), ending, found);
            } else if kind.is_file() && name.ends_with(ending) {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(under), ending, &mut found);
    found.sort();
    let files = found.into_iter().map(|path| File {
        path: path.strip_prefix(root()).expect("a path under the root").to_string_lossy().replace('\\', "/"),
        text: std::fs::read_to_string(&path).expect("a text"),
    });
    files.collect()
}

/// Fails with everything that was found, not with the first.
fn nothing(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// The functions of a file: name, first line, number of lines. It trusts rustfmt: a function ends with the first
/// closing brace that stands as far in as its beginning.
fn functions(file: &File) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let Some(name) = function_name(line.trim_start()) else { continue };
        let end = format!("{}}}", &line[..indent]);
        let ends_at = lines[at..].iter().position(|line| **line == end).map_or(at, |rows| at + rows);
        let ended = lines[at..=ends_at].iter().any(|line| line.ends_with('{'));
        // A function of one line, and one without a body, has no line that only opens it.
        let first_stop = lines[at..].iter().position(|line| line.ends_with(';') || line.ends_with('}'));
        let opens = lines[at..].iter().position(|line| line.ends_with('{'));
        if ended && opens < first_stop.map(|stop| stop + 1) {
            found.push((name.to_owned(), at + 1, ends_at - at + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line;
    loop {
        let (word, after) = rest.split_once(' ')?;
        match word {
            "fn" => return after.split(['(', '<']).next(),
            "pub" | "pub(crate)" | "pub(super)" | "pub(in" | "async" | "const" | "extern" | "default" => rest = after,
            _ => return None,
        }
    }
}

#[test]
fn files_have_at_most_600_lines_and_functions_at_most_70() {
    let mut long = Vec::new();
    let mut excused = Vec::new();
    for file in files("", ".rs") {
        let lines = file.text.lines().count();
        if lines > FILE_LINES_MAX {
            long.push(format!("{}: {lines} lines", file.path));
        }
        for (name, at, lines) in functions(&file) {
            if lines <= FUNCTION_LINES_MAX {
                continue;
            }
            match LONG_FUNCTIONS.iter().find(|(path, function, _)| *path == file.path && *function == name) {
                Some(excuse) => excused.push(excuse),
                None => long.push(format!("{}:{at}: fn {name} has {lines} lines", file.path)),
            }
        }
    }
    nothing("too long", &long);
    assert_eq!(excused.len(), LONG_FUNCTIONS.len(), "an excuse that is not needed any more");
}

#[test]
fn the_counter_of_lines_sees_long_functions() {
    let body = "        let n = 1;\n".repeat(80);
    let text = format!(
        "trait T {{\n    fn declared(&self);\n    fn short() {{}}\n    pub(crate) async fn long<T>(\n        t: T,\n    ) \
         -> u8 {{\n{body}    }}\n    fn three() {{\n        1\n    }}\n}}\n"
    );
    let found = functions(&File { path: String::new(), text });
    assert_eq!(found, [("long".to_owned(), 4, 84), ("three".to_owned(), 88, 3)]);
}

#[test]
fn every_file_says_what_lives_there() {
    let silent = |ending: &str, opening: &'static str| {
        files("", ending).into_iter().filter(move |file| !file.text.starts_with(opening)).map(|file| file.path)
    };
    // Cases for the compiler's messages are read from their outside, like any user's program.
    let rust = silent(".rs", "//!").filter(|path| !path.starts_with("tests/ui/"));
    nothing("no opening comment", &rust.chain(silent(".sql", "-- ")).collect::<Vec<_>>());
}

/// The rooms of the library and the line of the list in `lib.rs` on which each stands.
fn rooms(lib: &str) -> BTreeMap<String, usize> {
    let list = lib.split_once("//! # Layout").expect("a list of the rooms").1;
    let list = list.lines().skip_while(|line| !line.starts_with("//! 1.")).take_while(|line| line.starts_with("//! "));
    let mut rooms = BTreeMap::new();
    let mut floor = 0;
    for line in list {
        floor += usize::from(line.as_bytes().get(4).is_some_and(u8::is_ascii_digit));
        for room in line.split('`').skip(1).step_by(2) {
            assert_eq!(rooms.insert(room.to_owned(), floor), None, "{room} is twice in the list of rooms");
        }
    }
    rooms
}

#[test]
fn a_room_imports_only_rooms_above_it() {
    let sources = files("durable-core/src", ".rs");
    let lib = sources.iter().find(|file| file.path == "durable-core/src/lib.rs").expect("lib.rs");
    let rooms = rooms(&lib.text);
    let declared =
        lib.code().filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    assert_eq!(rooms.keys().map(String::as_str).collect::<Vec<_>>(), {
        let mut declared: Vec<_> = declared.collect();
        declared.sort_unstable();
        declared
    });

    let mut wrong = Vec::new();
    for file in sources.iter().filter(|file| file.path != lib.path) {
        let room = file.path["durable-core/src/".len()..].split(['/', '.']).next().unwrap_or_default();
        for (line, imported) in file.code().flat_map(|line| imports(line).map(move |room| (line, room))) {
            let allowed = AGAINST_THE_ORDER.iter().any(|(from, to, _)| *from == room && *to == imported);
            // What is not a room is an item that `lib.rs` itself gives out.
            if rooms.get(imported).is_some_and(|floor| *floor > rooms[room]) && !allowed {
                wrong.push(format!("{} ({room}) uses {imported}: {}", file.path, line.trim()));
            }
        }
    }
    nothing("against the order of the rooms", &wrong);
}

/// What a line names after `crate::`.
fn imports(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or(""))
}

#[test]
fn sql_is_only_in_the_store() {
    let sql = ["sqlx::query", "query_as", "query_scalar", "raw_sql", "QueryBuilder"];
    let mut found = Vec::new();
    for file in files("durable-core/src", ".rs").iter().filter(|file| !file.path.contains("/store/")) {
        let lines = file.code().filter(|line| sql.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|line| format!("{}: {}", file.path, line.trim())));
    }
    nothing("SQL outside the store", &found);
}

#[test]
fn every_statement_is_used_exactly_once() {
    let sources = files("durable-core/src/store", ".rs");
    let mut wrong = Vec::new();
    for statement in super::statements::statements() {
        let field = format!("sql.{}", statement.name);
        let uses = sources.iter().flat_map(File::code).flat_map(|line| line.split(&field).skip(1));
        let uses = uses.filter(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')).count();
        if uses != 1 {
            wrong.push(format!("{}.sql is used {uses} times", statement.name));
        }
    }
    nothing("each statement is one function's", &wrong);
}

#[test]
fn nothing_is_left_for_later() {
    // In two parts, so that they are not found here.
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
    ];
    let mut found = Vec::new();
    for file in [".rs", ".sql", ".toml", ".sh", ".md"].iter().flat_map(|ending| files("", ending)) {
        let lines = file.text.lines().enumerate().filter(|(_, line)| words.iter().any(|word| line.contains(word)));
        found.extend(lines.map(|(at, line)| format!("{}:{}: {}", file.path, at + 1, line.trim())));
    }
    nothing("left for later", &found);
}

#[test]
fn no_path_of_anybodys_machine_is_written_down() {
    let homes = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/"), concat!("/wo", "rk/")];
    // Homebrew lives in the same place on every Linux.
    let everybodys = concat!("/ho", "me/linuxbrew");
    let mut found = Vec::new();
    for file in [".rs", ".sql", ".toml", ".sh", ".md", ".stderr"].iter().flat_map(|ending| files("", ending)) {
        let lines = file.text.lines().enumerate();
        let lines = lines.filter(|(_, line)| homes.iter().any(|home| line.replace(everybodys, "").contains(home)));
        found.extend(lines.map(|(at, line)| format!("{}:{}: {}", file.path, at + 1, line.trim())));
    }
    nothing("paths of a machine", &found);
}

#[test]
fn every_member_inherits_the_lints() {
    let without = files("", "Cargo.toml").into_iter().filter(|file| {
        !file.text.contains("[workspace]") && !file.text.replace(' ', "").contains("[lints]\nworkspace=true")
    });
    nothing("without the lints of the workspace", &without.map(|file| file.path).collect::<Vec<_>>());
}
