//! An event that the application publishes starts every workflow that is subscribed to it, once.
//!
//! ```text
//! cargo run -p durable-examples --bin subscribe
//! psql .. -c "select event, workflow, queue, partition_by, removed_at from durable.subscription"
//! ```

use anyhow::Result;
use durable::{Ctx, Durable, Event, Subscription, step, workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Clone, Serialize, Deserialize)]
struct Lead {
    id: i64,
    name: String,
}

/// The type of the event is that of the workflows' parameter: anything else does not compile.
const LEAD_CREATED: Event<Lead> = Event::new("lead.created");

#[step]
async fn write_mail(name: String) -> Result<String> {
    println!("  a mail to {name}");
    Ok(format!("Dear {name}"))
}

#[workflow]
async fn greet(ctx: &Ctx, lead: Lead) -> Result<String> {
    Ok(ctx.run(write_mail(lead.name)).await?)
}

#[workflow]
async fn score(ctx: &Ctx, lead: Lead) -> Result<u64> {
    println!("  scoring {} for {}", lead.name, ctx.id());
    Ok(lead.name.len() as u64)
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("subscribe")?;
    let pool = PgPool::connect(database.url()).await?;
    sqlx::raw_sql("drop table if exists lead; create table lead (id bigint primary key, name text not null)")
        .execute(&pool)
        .await?;

    // A worker has the workflows, and says which event starts them. Each process of a fleet says the same.
    let worker = Durable::builder(pool.clone())
        .register(greet)
        .register(score)
        .subscribe(Subscription::new(LEAD_CREATED, greet))
        .subscribe(Subscription::new(LEAD_CREATED, score).priority(5))
        .start()
        .await?;

    // The web application knows the event, and neither of the workflows.
    let web = Durable::builder(pool.clone()).client().await?;
    let lead = Lead { id: 42, name: "Ada".to_owned() };
    let id = format!("lead-{}-{}", lead.id, std::process::id());
    let mut tx = pool.begin().await?;
    sqlx::query("insert into lead (id, name) values ($1, $2)").bind(lead.id).bind(&lead.name).execute(&mut *tx).await?;
    let published = web.publish(LEAD_CREATED, lead.clone()).id(&id).in_tx(&mut tx).await?;
    // If this does not commit, there is no lead, and nothing was published.
    tx.commit().await?;
    println!("the lead has started {} workflows", published.started);

    let mail = web.workflow::<String>(format!("lead.created/greet/{id}")).result().await?;
    let points = web.workflow::<u64>(format!("lead.created/score/{id}")).result().await?;
    println!("mail: {mail:?}, score: {points}");

    // A click that comes twice, a request that is repeated: nobody is greeted again.
    let again = web.publish(LEAD_CREATED, lead).id(&id).await?;
    println!("published again: {} started, {} were there", again.started, again.existed);

    // By anybody who has SQL, in a trigger for instance.
    let publish = "select durable.publish('lead.created', json_build_object('id', 43, 'name', 'Grace'), id => $1)";
    let started: i32 = sqlx::query_scalar(publish).bind(format!("{id}-sql")).fetch_one(&pool).await?;
    println!("from SQL: {started} started");
    println!("mail: {:?}", web.workflow::<String>(format!("lead.created/greet/{id}-sql")).result().await?);

    worker.shutdown(std::time::Duration::from_secs(5)).await;
    Ok(())
}
