//! What the tests share: a database each, workflows whose effects are counted, and ways to wait for facts.
//!
//! `db` makes databases and workers, `effects` counts what step bodies did in append-only tables without
//! unique constraints, `gate` holds a body where a test wants it, `kit` has steps that are watched and held,
//! `island` is a worker that can be taken away, `soon` bounds the wait for a result, `wire` counts what connections say.
//! For the tests of crashes, `journey` has the workflows, `family` those with children, `crowd` those that run in great number, and `clockwork` the one that schedules start; `victim` the
//! processes, `fleet` those of two releases, `checker` what must be true afterwards. The tests themselves are in `tests/it`, the processes that they
//! kill in `bin`.

pub mod calls;
pub mod checker;
pub mod clockwork;
pub mod crowd;
pub mod db;
pub mod effects;
pub mod family;
pub mod fleet;
pub mod gate;
pub mod island;
pub mod journey;
pub mod kit;
pub mod soon;
pub mod traced;
pub mod victim;
pub mod wire;
