//! The tests of the library against PostgreSQL: one file per subject, each test named after the fact it shows.

mod basics;
mod crash;
mod faults;
mod takeover;
