//! Every statement of the library is one that PostgreSQL can prepare, and none reads a hot table from end to end.

use std::path::Path;

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
