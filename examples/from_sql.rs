//! From SQL: a trigger on the application's own table starts a workflow for every order, whoever inserts it; and
//! a payment is told to it by SQL, too.
//!
//! ```text
//! cargo run -p durable-examples --bin from-sql
//! ```

use anyhow::Result;
use durable::{Ctx, Durable, PgConnection, Topic, days, seconds, step, workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

const PAID: Topic<i64> = Topic::new("paid");

/// The application's table. `to_json(new)` is an object of its columns, which is what [`Order`] decodes from.
const TABLE: &str = "
    create table if not exists orders (
        id bigint generated always as identity primary key, item text not null, shipped boolean not null default false
    );
    create or replace function order_placed() returns trigger language plpgsql as $$ begin
        perform durable.start('fulfil', to_json(new), id => 'order-' || new.id);
        return null;
    end $$;
    create or replace trigger order_placed after insert on orders for each row execute function order_placed();";

#[derive(Serialize, Deserialize, Clone)]
struct Order {
    id: i64,
    item: String,
}

#[step(tx)]
async fn ship(tx: &mut PgConnection, order: Order) -> Result<()> {
    println!("shipping {} for order {}", order.item, order.id);
    sqlx::query("update orders set shipped = true where id = $1").bind(order.id).execute(tx).await?;
    Ok(())
}

#[workflow]
async fn fulfil(ctx: &Ctx, order: Order) -> Result<String> {
    let Some(cents) = ctx.receive(PAID).timeout(days(7)).await? else {
        return Ok(format!("order {} was never paid", order.id));
    };
    ctx.run(ship(order.clone())).await?;
    Ok(format!("order {} was paid with {cents} cents and shipped", order.id))
}

#[tokio::main]
async fn main() -> Result<()> {
    let database = durable_dev::Database::dev("from_sql")?;
    let pool = PgPool::connect(database.url()).await?;
    let durable = Durable::builder(pool.clone()).register(fulfil).start().await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;

    // From here on it is what any program does that knows nothing of this library: an insert, ..
    let placed = sqlx::query_scalar("insert into orders (item) values ('tea') returning id");
    let order: i64 = placed.fetch_one(&pool).await?;
    // .. which starts nothing if it is rolled back, ..
    let mut tx = pool.begin().await?;
    sqlx::query("insert into orders (item) values ('a change of mind')").execute(&mut *tx).await?;
    tx.rollback().await?;
    // .. and a payment, which the key makes one however often it is told.
    for _ in 0..2 {
        let pay = sqlx::query("select durable.send('order-' || $1, 'paid', '1999', key => 'payment')");
        pay.bind(order).execute(&pool).await?;
    }

    println!("{}", durable.workflow::<String>(format!("order-{order}")).result().await?);
    durable.shutdown(seconds(5)).await;
    Ok(())
}
