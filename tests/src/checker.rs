//! What must be true of a workflow's history, effects and messages after all faults: a pure function over
//! what the database holds, and the look that gathers it.
//!
//! The checker itself is proved below, by histories with a fault in each place.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

/// One recorded step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The lane.
    pub lane: String,
    /// The number in the lane.
    pub seq: i32,
    /// `step`, `transaction`, `sleep` or `receive`.
    pub kind: String,
    /// The step's name, or the topic.
    pub name: String,
    /// The output's JSON.
    pub output: Option<String>,
    /// When it was recorded, by the database's clock.
    pub recorded_at: DateTime<Utc>,
}

/// One effect of a step body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    /// The idempotency key that the body saw.
    pub key: String,
    /// When a plain step's body came to it; when a transactional one wrote it.
    pub at: DateTime<Utc>,
    /// The process in which it happened.
    pub pid: i32,
    /// What it was made of, if it says so.
    pub value: String,
}

/// One message in the mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The sender's key.
    pub key: Option<String>,
    /// Whether it was received.
    pub received: bool,
}

/// All that the database holds about one workflow.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its status.
    pub status: String,
    /// Its output's JSON.
    pub output: Option<String>,
    /// Its history, in position order.
    pub steps: Vec<Recorded>,
    /// What its bodies did.
    pub effects: Vec<Effect>,
    /// Its mailbox, in the order of sending.
    pub mail: Vec<Mail>,
}

/// Lane, seq, kind, name, output, recorded_at.
type StepColumns = (String, i32, String, String, Option<String>, DateTime<Utc>);

/// Key, at, pid, value.
type EffectColumns = (String, DateTime<Utc>, i32, String);

impl Seen {
    /// Look at a workflow.
    ///
    /// # Errors
    ///
    /// The database's, and when there is no such workflow.
    pub async fn look(pool: &PgPool, id: &str) -> sqlx::Result<Self> {
        let (status, output) = sqlx::query_as("select status, output::text from durable.workflow where id = $1")
            .bind(id)
            .fetch_one(pool)
            .await?;
        let steps: Vec<StepColumns> = sqlx::query_as(
            "select lane, seq, kind, name, output::text, recorded_at
             from durable.step where workflow_id = $1 order by lane, seq",
        )
        .bind(id)
        .fetch_all(pool)
        .await?;
        let effects: Vec<EffectColumns> =
            sqlx::query_as("select key, at, pid, coalesce(value, '') from effect where workflow_id = $1 order by at")
                .bind(id)
                .fetch_all(pool)
                .await?;
        let mail: Vec<(Option<String>, bool)> = sqlx::query_as(
            "select key, received_at is not null from durable.message where workflow_id = $1 order by n",
        )
        .bind(id)
        .fetch_all(pool)
        .await?;
        let recorded =
            |(lane, seq, kind, name, output, recorded_at)| Recorded { lane, seq, kind, name, output, recorded_at };
        Ok(Self {
            status,
            output,
            steps: steps.into_iter().map(recorded).collect(),
            effects: effects.into_iter().map(|(key, at, pid, value)| Effect { key, at, pid, value }).collect(),
            mail: mail.into_iter().map(|(key, received)| Mail { key, received }).collect(),
        })
    }

    /// The same, as if all outputs were one: for workflows whose outputs differ each time.
    #[must_use]
    pub fn without_outputs(&self) -> Self {
        let steps = self.steps.iter().map(|step| Recorded { output: None, ..step.clone() }).collect();
        Self { output: None, steps, ..self.clone() }
    }

    /// Forget one effect that came after its record, from a process that may have been in the body when it was frozen.
    pub fn excuse_one_late_effect(&mut self, id: &str, pid: i32) {
        let is_late = |effect: &Effect| {
            effect.pid == pid
                && self.steps.iter().any(|s| effect.key == format!("{id}/{}", position(s)) && effect.at > s.recorded_at)
        };
        if let Some(late) = self.effects.iter().position(is_late) {
            self.effects.remove(late);
        }
    }

    fn shape(&self) -> Vec<(String, &str, &str, Option<&str>)> {
        self.steps.iter().map(|s| (position(s), &*s.kind, &*s.name, s.output.as_deref())).collect()
    }
}

fn position(step: &Recorded) -> String {
    if step.lane.is_empty() { step.seq.to_string() } else { format!("{}.{}", step.lane, step.seq) }
}

/// How a workflow that went through faults differs from what one without faults came to, or from what is
/// promised. Empty when all is well.
pub fn violations(id: &str, seen: &Seen, clean: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    if seen.status != clean.status {
        found.push(format!("it is {}, not {}", seen.status, clean.status));
    }
    if seen.output != clean.output {
        found.push(format!("its output is {:?}, not {:?}", seen.output, clean.output));
    }
    history(seen, clean, &mut found);
    effects(id, seen, &mut found);
    mail(seen, clean, &mut found);
    found.into_iter().map(|violation| format!("{id}: {violation}")).collect()
}

fn history(seen: &Seen, clean: &Seen, found: &mut Vec<String>) {
    let (is, should) = (seen.shape(), clean.shape());
    for step in should.iter().filter(|step| !is.contains(step)) {
        found.push(format!("{step:?} is missing in the history"));
    }
    for step in is.iter().filter(|step| !should.contains(step)) {
        found.push(format!("{step:?} should not be in the history"));
    }
    for (n, step) in is.iter().enumerate() {
        if is[..n].iter().any(|earlier| earlier.0 == step.0) {
            found.push(format!("position {} is recorded twice", step.0));
        }
    }
}

fn effects(id: &str, seen: &Seen, found: &mut Vec<String>) {
    for step in seen.steps.iter().filter(|step| matches!(&*step.kind, "step" | "transaction")) {
        let key = format!("{id}/{}", position(step));
        let of_it: Vec<&Effect> = seen.effects.iter().filter(|effect| effect.key == key).collect();
        if of_it.is_empty() {
            found.push(format!("step {key} is recorded but had no effect"));
        }
        if step.kind == "transaction" && of_it.len() > 1 {
            found.push(format!("transactional step {key} had its effect {} times", of_it.len()));
        }
        if let Some(late) = of_it.iter().find(|effect| effect.at > step.recorded_at && step.kind == "step") {
            let by = late.at - step.recorded_at;
            found.push(format!("plain step {key} was attempted {by} after its record"));
        }
    }
    let keys: Vec<String> = seen.steps.iter().map(|step| format!("{id}/{}", position(step))).collect();
    for effect in seen.effects.iter().filter(|effect| !keys.contains(&effect.key)) {
        found.push(format!("an effect has the key {:?}, which is no recorded step's", effect.key));
    }
}

/// For a workflow of one lane that hands each outcome on to the next step, which notes it with its effect; beginning
/// with its id, and anew with its id after a message. What its steps were given and is not what was recorded, and
/// outcomes that are another workflow's. Empty when all is well.
pub fn unfounded(id: &str, seen: &Seen) -> Vec<String> {
    let mut found = Vec::new();
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let mut given = json(id);
    for step in &seen.steps {
        let key = format!("{id}/{}", position(step));
        match &*step.kind {
            "receive" => given = json(id),
            "step" | "transaction" => {
                let of_it = seen.effects.iter().filter(|effect| effect.key == key && json(&effect.value) != given);
                found.extend(of_it.map(|e| format!("step {key} was given {:?}, but {given} is recorded", e.value)));
                given = step.output.clone().unwrap_or_default();
                if !given.starts_with(&format!("\"{id}:")) {
                    found.push(format!("step {key} has the outcome of another workflow: {given}"));
                }
            }
            _ => {}
        }
    }
    if seen.output.as_ref() != Some(&given) {
        found.push(format!("{id}: its output is {:?}, but {given} was its last outcome", seen.output));
    }
    found
}

fn mail(seen: &Seen, clean: &Seen, found: &mut Vec<String>) {
    let keys = |of: &Seen| of.mail.iter().map(|mail| mail.key.clone()).collect::<Vec<_>>();
    if keys(seen) != keys(clean) {
        found.push(format!("its mailbox has {:?}, not {:?}", keys(seen), keys(clean)));
    }
    for unread in seen.mail.iter().filter(|mail| !mail.received) {
        found.push(format!("message {:?} was not received", unread.key));
    }
    let received = |of: &Seen| of.steps.iter().filter(|step| step.kind == "receive").count();
    let consumed = seen.mail.iter().filter(|mail| mail.received).count();
    if received(seen) != consumed {
        found.push(format!("{consumed} messages are marked as received, {} receives are recorded", received(seen)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(second, 0).unwrap()
    }

    fn step(seq: i32, kind: &str, output: &str) -> Recorded {
        let (kind, output) = (kind.into(), Some(output.into()));
        Recorded { lane: String::new(), seq, kind, name: "s".into(), output, recorded_at: at(10 * i64::from(seq) + 9) }
    }

    /// A plain step of two attempts, a transactional one, a message.
    fn clean() -> Seen {
        let effect = |key: &str, second| Effect { key: key.into(), at: at(second), pid: 1, value: String::new() };
        Seen {
            status: "completed".into(),
            output: Some("3".into()),
            steps: vec![step(0, "step", "1"), step(1, "transaction", "2"), step(2, "receive", "3")],
            effects: vec![effect("w/0", 1), effect("w/0", 2), effect("w/1", 18)],
            mail: vec![Mail { key: Some("k".into()), received: true }],
        }
    }

    fn found(fault: impl FnOnce(&mut Seen)) -> String {
        let mut seen = clean();
        fault(&mut seen);
        violations("w", &seen, &clean()).join("; ")
    }

    #[test]
    fn a_workflow_without_faults_has_no_violation() {
        assert_eq!(found(|_| ()), "");
    }

    #[test]
    fn each_fault_in_a_history_is_a_violation() {
        assert!(found(|s| drop(s.steps.remove(1))).contains("is missing in the history"));
        assert!(found(|s| s.steps.push(step(3, "step", "1"))).contains("should not be in the history"));
        assert!(found(|s| s.steps.push(step(1, "transaction", "2"))).contains("position 1 is recorded twice"));
        assert!(found(|s| s.steps[0].output = Some("7".into())).contains("should not be in the history"));
        assert!(found(|s| s.status = "blocked".into()).contains("it is blocked"));
        assert!(found(|s| s.output = None).contains("its output is None"));
    }

    #[test]
    fn each_fault_in_the_effects_is_a_violation() {
        assert!(found(|s| s.effects.push(s.effects[2].clone())).contains("had its effect 2 times"));
        assert!(found(|s| drop(s.effects.pop())).contains("w/1 is recorded but had no effect"));
        assert!(found(|s| s.effects[1].at = at(10)).contains("w/0 was attempted PT1S after its record"));
        assert!(found(|s| s.effects[0].key = "w/7".into()).contains("no recorded step's"));
    }

    #[test]
    fn each_fault_in_the_mailbox_is_a_violation() {
        assert!(found(|s| s.mail[0].received = false).contains("was not received"));
        assert!(found(|s| s.mail.push(s.mail[0].clone())).contains("its mailbox has"));
        assert!(found(|s| s.mail.push(s.mail[0].clone())).contains("2 messages are marked as received"));
        assert!(found(|s| s.mail.clear()).contains("its mailbox has []"));
    }

    /// Two steps that hand on what they were given, and two attempts of the second.
    fn chain() -> Seen {
        let effect =
            |key: &str, second, value: &str| Effect { key: key.into(), at: at(second), pid: 1, value: value.into() };
        Seen {
            status: "completed".into(),
            output: Some("\"w:b\"".into()),
            steps: vec![step(0, "step", "\"w:a\""), step(1, "step", "\"w:b\"")],
            effects: vec![effect("w/0", 1, "w"), effect("w/1", 11, "w:a"), effect("w/1", 12, "w:a")],
            mail: Vec::new(),
        }
    }

    #[test]
    fn what_was_given_and_is_not_recorded_is_unfounded() {
        let found = |fault: fn(&mut Seen)| {
            let mut seen = chain();
            fault(&mut seen);
            unfounded("w", &seen).join("; ")
        };
        assert_eq!(found(|_| ()), "");
        assert!(found(|s| s.effects[1].value = "w:x".into()).contains("was given \"w:x\", but \"w:a\" is recorded"));
        assert!(found(|s| s.effects[0].value = "v".into()).contains("w/0 was given \"v\""));
        assert!(found(|s| s.steps[0].output = Some("\"v:a\"".into())).contains("the outcome of another workflow"));
        assert!(found(|s| drop(s.steps.pop())).contains("its output is"));
        assert!(found(|s| s.output = Some("\"w:a\"".into())).contains("its output is"));
    }

    #[test]
    fn one_late_effect_of_the_frozen_process_is_excused_and_no_second() {
        let mut seen = chain();
        for (effect, pid) in [(1, 7), (2, 8)] {
            seen.effects[effect].at = at(1_000);
            seen.effects[effect].pid = pid;
        }
        seen.excuse_one_late_effect("w", 7);
        assert_eq!(seen.effects.iter().map(|effect| effect.pid).collect::<Vec<_>>(), [1, 8]);
        seen.excuse_one_late_effect("w", 7);
        assert_eq!(violations("w", &seen, &chain()).len(), 1);
    }
}
