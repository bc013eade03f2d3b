//! Bodies that await what is not the context's: it is reported, by the workflow's name and id, and nothing is lost.

use std::sync::{Arc, Mutex};

use anyhow::Result;
use durable::{Ctx, workflow};
use durable_tests::db::Db;
use durable_tests::gate::Gate;
use durable_tests::kit::{Kit, gated};
use durable_tests::soon::Soon;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Where the bodies below wait behind the context's back.
static BEHIND: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(Gate::default);

/// The warnings of this thread about foreign awaits: whose they are.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<String>>>);

#[derive(Default)]
struct Fields {
    whose: Vec<String>,
    is_about_it: bool,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let value = format!("{value:?}");
        match field.name() {
            "message" => self.is_about_it = value.contains("awaits something that is not the context's"),
            "id" => self.whose.push(value),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "workflow" {
            self.whose.push(value.to_owned());
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Reports {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if fields.is_about_it {
            self.0.lock().unwrap().push(fields.whose.join(" "));
        }
    }
}

/// Waits for something of the process's, which a recovery cannot repeat.
#[workflow]
async fn goes_behind(ctx: &Ctx) -> Result<String> {
    BEHIND.pass().await;
    Ok(ctx.run(gated("after".into())).await?)
}

/// Only waits for what is the context's.
#[workflow]
async fn goes_by_the_book(ctx: &Ctx) -> Result<String> {
    Ok(ctx.run(gated("in a step".into())).await?)
}

#[tokio::test]
async fn a_body_that_awaits_what_is_not_the_contexts_is_reported_by_name_once() -> Result<()> {
    let reports = Reports::default();
    // On this thread, which is the whole runtime of this test.
    let _listening = tracing::subscriber::set_default(tracing_subscriber::registry().with(reports.clone()));
    let (db, kit) = (Db::new().await, Kit::default());
    let durable = db.builder().register(goes_behind).register(goes_by_the_book).state(kit.clone()).start().await?;
    let honest = durable.start(goes_by_the_book()).id("honest").await?;
    kit.gate.reached().await;
    let foreign = durable.start(goes_behind()).id("foreign").await?;
    BEHIND.reached().await;
    while reports.0.lock().unwrap().is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // It is reported, not ended: what it waits for may come.
    assert_eq!(foreign.status().await?, durable::Status::Running);
    BEHIND.open();
    for _ in 0..2 {
        kit.gate.open();
    }
    assert_eq!((honest.soon().await?, foreign.soon().await?), ("in a step".to_owned(), "after".to_owned()));
    assert_eq!(*reports.0.lock().unwrap(), ["goes_behind foreign"]);
    Ok(())
}
