//! The table at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::facts::{Facts, LeadFacts, Takeover};

pub(super) fn print(facts: &Facts, took: Duration) {
    println!(
        "\n{:<24} {:<9} {:<10} {:>6} {:>6} {:>12} {:>9}",
        "lead", "decision", "outcome", "drafts", "mails", "steps begun", "recorded"
    );
    facts.leads.iter().for_each(print_lead);

    println!("\n{:<28} {:>12} {:>16} {:>16}", "killed", "steps cut off", "first again", "all again");
    facts.takeovers.iter().for_each(print_takeover);

    let steps = &facts.steps;
    let requests: u32 = facts.deliveries.iter().map(|delivery| delivery.requests).sum();
    println!();
    line("leads, outcomes", &format!("{}: {}", facts.leads.len(), outcomes(&facts.leads)));
    line(
        "kills of the worker",
        &format!("{}; {} times another one went on with a lead", facts.takeovers.len(), steps.arrivals),
    );
    line(
        "bodies of steps begun",
        &format!(
            "{}, of which {} again after a kill and {} again after a failure",
            steps.bodies, steps.after_kill, steps.after_failure
        ),
    );
    line("steps recorded", &steps.recorded.to_string());
    line(
        "re-read instead of repeated",
        &format!("{}, whenever another worker went on; repeated: {}", steps.reread, steps.repeated),
    );
    line("drafts written", &facts.leads.iter().map(|lead| lead.drafts).sum::<i64>().to_string());
    line(
        "mails delivered",
        &format!("{} under {} keys, asked for {requests} times", facts.deliveries.len(), keys.len()),
    );
    line("the weather", &counts(&facts.weather));
    line("wall time", &format!("{:.0} s", took.as_secs_f32()));
    println!();
}

fn line(name: &str, value: &str) {
    println!("{name:<32} {value}");
}

fn print_lead(lead: &LeadFacts) {
    println!(
        "{:<24} {:<9} {:<10} {:>6} {:>6} {:>12} {:>9}",
        lead.company, lead.decision, lead.outcome, lead.drafts, lead.mails, lead.bodies, lead.recorded
    );
}

fn print_takeover(takeover: &Takeover) {
    let time = |time: Option<Duration>| {
        time.map_or("nothing cut off".to_owned(), |time| format!("{:.2} s later", time.as_secs_f32()))
    };
    println!(
        "{:<28} {:>12} {:>16} {:>16}",
        format!("worker {}", takeover.worker),
        takeover.cut_off,
        time(takeover.first),
        time(takeover.last)
    );
}

fn outcomes(leads: &[LeadFacts]) -> String {
    let mut outcomes = BTreeMap::new();
    for lead in leads {
        *outcomes.entry(lead.outcome.as_str()).or_insert(0_u32) += 1;
    }
    counts(&outcomes)
}

fn counts(counts: &BTreeMap<&str, u32>) -> String {
    counts.iter().map(|(what, count)| format!("{count} × {what}")).collect::<Vec<_>>().join(", ")
}
