//! What the tests share: a database each, workflows whose effects are counted, and ways to wait for facts.
//!
//! `db` makes databases and workers, `effects` counts what step bodies did in append-only tables without
//! unique constraints, `gate` holds a body where a test wants it, `kit` has steps that are watched and held,
//! `island` is a worker that can be taken away, `wire` counts what connections say. The tests themselves are
//! in `tests/it`, the process that they kill is `bin/victim`.

pub mod db;
pub mod effects;
pub mod gate;
pub mod island;
pub mod kit;
pub mod wire;
