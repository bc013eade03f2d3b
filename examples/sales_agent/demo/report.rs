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

    println!();
    print_totals(facts);
    line("wall time", &format!("{:.0} s", took.as_secs_f32()));
    println!();
}

fn print_totals(facts: &Facts) {
    let Facts { leads, steps, takeovers, deliveries, weather } = facts;
    let drafts: i64 = leads.iter().map(|lead| lead.drafts).sum();
    let keys: BTreeSet<&str> = deliveries.iter().map(|delivery| delivery.key.as_str()).collect();
    let requests: u32 = deliveries.iter().map(|delivery| delivery.requests).sum();
    let (bodies, after_kill, after_failure) = (steps.bodies, steps.after_kill, steps.after_failure);
    let (kills, arrivals) = (takeovers.len(), steps.arrivals);
    let (mails, keys) = (deliveries.len(), keys.len());

    line("leads", &format!("{}: {}", leads.len(), outcomes(leads)));
    line("kills", &format!("{kills}; {arrivals} times another worker went on with a lead"));
    line(
        "re-read then",
        &format!("{} complete steps; complete steps that were done again: {}", steps.reread, steps.repeated),
    );
    line("steps recorded", &steps.recorded.to_string());
    line(
        "steps begun",
        &format!("{bodies}, of which {after_kill} again after a kill, {after_failure} again after a failure"),
    );
    line("drafts written", &drafts.to_string());
    line("mails delivered", &format!("{mails} for {keys} keys, asked for {requests} times"));
    line("the weather", &counts(weather));
}

fn line(name: &str, value: &str) {
    println!("{name:<18} {value}");
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
