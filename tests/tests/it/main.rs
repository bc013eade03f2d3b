//! The tests of the library against PostgreSQL: one file per subject, each test named after the fact it shows.

mod bad_input;
mod basics;
mod budgets;
mod cancelling;
mod crash;
mod faults;
mod giving_up;
mod history;
mod in_transactions;
mod lanes;
mod messages;
mod plans;
mod results;
mod retries;
mod sabotage;
mod secrets;
mod starting;
mod steps;
mod takeover;
mod tidy;
mod ui;
mod under_load;
mod values;
mod waiting;
mod waiting_states;
