//! The tests of the library against PostgreSQL: one file per subject, each test named after the fact it shows.

mod basics;
mod budgets;
mod crash;
mod faults;
mod plans;
mod takeover;
mod tidy;
mod ui;
mod waiting;
