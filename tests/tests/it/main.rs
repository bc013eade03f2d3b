//! The tests of the library against PostgreSQL: one file per subject, each test named after the fact it shows.

mod basics;
mod budgets;
mod plans;
mod tidy;
mod ui;
mod waiting;
