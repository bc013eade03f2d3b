//! Messages: received exactly once, in order per topic, whenever they come.

use std::time::Duration;

use anyhow::Result;
use durable::{Ctx, Durable, ErrorKind, FailureKind, Status, Topic, hours, minutes, workflow};
use durable_tests::db::Db;
use durable_tests::island::Island;
use durable_tests::kit::{Kit, gated, work};
use durable_tests::soon::Soon;

const WORD: Topic<String> = Topic::new("word");
const NUMBER: Topic<i64> = Topic::new("number");
/// The same topic, taken for one of numbers.
const WORD_AS_NUMBER: Topic<i64> = Topic::new("word");

#[workflow]
async fn collects(ctx: &Ctx, count: usize) -> Result<Vec<String>> {
    let mut words = Vec::new();
    for _ in 0..count {
        words.push(ctx.receive(WORD).await?);
    }
    Ok(words)
}

/// A step that the test can hold, then two messages.
#[workflow]
async fn works_then_collects(ctx: &Ctx) -> Result<Vec<String>> {
    ctx.run(gated("step".into())).await?;
    Ok(vec![ctx.receive(WORD).await?, ctx.receive(WORD).await?])
}

async fn collector(db: &Db) -> Result<Durable> {
    let builder = db.builder().register(collects).register(works_then_collects).state(Kit::default());
    Ok(builder.start().await?)
}

/// P7: whether the body waits already makes no difference.
#[tokio::test]
async fn a_message_is_received_whenever_it_was_sent() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(collects(3)).id("c").await?;
    client.send("c", WORD, "queued".into()).await?;

    let durable = collector(&db).await?;
    db.until_status("c", "suspended").await;
    client.send("c", WORD, "suspended, from outside".into()).await?;
    db.until("select status = 'suspended' and wakes = 2 from durable.workflow").await;
    durable.send("c", WORD, "suspended, from here".into()).await?;

    let words = durable.workflow::<Vec<String>>("c").soon().await?;
    assert_eq!(words, ["queued", "suspended, from outside", "suspended, from here"]);
    assert_eq!(db.count("select count(*) from durable.message where received_at is null").await, 0);
    assert_eq!(db.count("select count(*) from durable.message where value is not null").await, 0);
    Ok(())
}

/// P7: a message that comes while a step runs waits for its receive.
#[tokio::test]
async fn a_message_sent_while_a_step_runs_is_received_after_it() -> Result<()> {
    let db = Db::new().await;
    let kit = Kit::default();
    let durable = db.builder().register(works_then_collects).state(kit.clone()).start().await?;
    let handle = durable.start(works_then_collects()).id("c").await?;
    kit.gate.reached().await;
    durable.send("c", WORD, "a".into()).await?;
    db.client().await.send("c", WORD, "b".into()).await?;
    kit.gate.open();
    assert_eq!(handle.soon().await?, ["a", "b"]);
    Ok(())
}

/// P7: the order of one sender is kept, and of many senders each one's.
#[tokio::test]
async fn messages_of_a_topic_are_received_in_the_order_sent() -> Result<()> {
    let db = Db::new().await;
    let durable = collector(&db).await?;
    let handle = durable.start(collects(60)).id("c").await?;
    let senders = (0..3).map(|sender| {
        let door = durable.clone();
        tokio::spawn(async move {
            for n in 0..20 {
                door.send("c", WORD, format!("{sender} {n:02}")).await?;
            }
            Ok::<(), durable::Error>(())
        })
    });
    for sender in futures::future::join_all(senders).await {
        sender??;
    }
    let words = handle.soon().await?;
    for sender in ["0", "1", "2"] {
        let of_one: Vec<_> = words.iter().filter(|w| w.starts_with(sender)).collect();
        assert_eq!(of_one.len(), 20);
        assert!(of_one.is_sorted(), "{of_one:?}");
    }
    Ok(())
}

#[workflow]
async fn number_then_word(ctx: &Ctx) -> Result<(i64, String)> {
    let number = ctx.receive(NUMBER).await?;
    Ok((number, ctx.receive(WORD).await?))
}

#[tokio::test]
async fn topics_do_not_stand_in_each_others_way() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(number_then_word).start().await?;
    let handle = durable.start(number_then_word()).id("t").await?;
    durable.send("t", WORD, "first sent".into()).await?;
    db.until("select status = 'suspended' and wakes = 1 from durable.workflow").await;
    durable.send("t", NUMBER, 2).await?;
    assert_eq!(handle.soon().await?, (2, "first sent".to_owned()));
    Ok(())
}

#[workflow]
async fn two_receivers(ctx: &Ctx) -> Result<(i64, String)> {
    let numbers = ctx.branch(async |ctx: &Ctx| {
        let mut sum = 0;
        for _ in 0..10 {
            sum += ctx.receive(NUMBER).await?;
        }
        anyhow::Ok(sum)
    });
    let words = ctx.branch(async |ctx: &Ctx| {
        let mut all = String::new();
        for _ in 0..10 {
            all += &ctx.receive(WORD).await?;
        }
        anyhow::Ok(all)
    });
    let (numbers, words) = tokio::join!(numbers, words);
    Ok((numbers?, words?))
}

/// P7: a message for one receiver that comes while the other looks into the mailbox is not lost. Senders
/// outside the process, so that only the row's count of wakes can tell of them; no timer that would help.
#[tokio::test]
async fn two_receivers_in_branches_lose_no_message() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(two_receivers).concurrency(64).start().await?;
    let (one, two) = (db.client().await, db.client().await);
    let ids: Vec<_> = (0..20).map(|n| format!("r{n}")).collect();
    let handles = durable.start_many(ids.iter().map(|id| (id.clone(), two_receivers()))).await?;
    let numbers = async {
        for n in 0..10 {
            for id in &ids {
                one.send(id, NUMBER, n).await?;
            }
        }
        anyhow::Ok(())
    };
    let words = async {
        for letter in "abcdefghij".chars() {
            for id in &ids {
                two.send(id, WORD, letter.to_string()).await?;
            }
        }
        anyhow::Ok(())
    };
    tokio::try_join!(numbers, words)?;
    for handle in handles {
        let got = handle.soon().await?;
        assert_eq!(got, (45, "abcdefghij".to_owned()));
    }
    Ok(())
}

/// P7: what was received stays so when the worker is lost, and what was not is received once.
#[tokio::test]
async fn a_message_is_received_once_across_the_loss_of_a_worker() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let client = db.client().await;
    let builder = || db.builder().register(receives_around_a_step).state(kit.clone());
    let first = Island::start(builder()).await;
    client.start(receives_around_a_step()).id("c").await?;
    client.send("c", WORD, "a".into()).await?;
    client.send("c", WORD, "b".into()).await?;
    kit.gate.reached().await;
    first.sink().await;
    clock.advance(minutes(1)).await?;

    let second = builder().start().await?;
    kit.gate.reached().await;
    kit.gate.open();
    let words = second.workflow::<Vec<String>>("c").soon().await?;
    assert_eq!(words, ["a", "b"]);
    assert_eq!(db.count("select count(*) from durable.step where kind = 'receive'").await, 2);
    Ok(())
}

#[workflow]
async fn receives_around_a_step(ctx: &Ctx) -> Result<Vec<String>> {
    let first = ctx.receive(WORD).await?;
    ctx.run(gated("between".into())).await?;
    Ok(vec![first, ctx.receive(WORD).await?])
}

/// P7: a key makes a message one, also long after it was received.
#[tokio::test]
async fn a_key_refuses_a_repeat_also_after_the_message_was_received() -> Result<()> {
    let db = Db::new().await;
    let durable = collector(&db).await?;
    let handle = durable.start(collects(2)).id("c").await?;
    durable.send("c", WORD, "one".into()).key("click").await?;
    durable.send("c", WORD, "unread repeat".into()).key("click").await?;
    db.until("select count(*) = 1 from durable.message where received_at is not null").await;
    durable.send("c", WORD, "late repeat".into()).key("click").await?;
    durable.send("c", WORD, "two".into()).key("other click").await?;
    assert_eq!(handle.soon().await?, ["one", "two"]);
    durable.send("c", WORD, "repeat after the end".into()).key("click").await?;

    // The key is the receiver's: another workflow has its own.
    durable.start(collects(1)).id("d").await?;
    durable.send("d", WORD, "mine".into()).key("click").await?;
    assert_eq!(durable.workflow::<Vec<String>>("d").soon().await?, ["mine"]);
    Ok(())
}

/// P7: twenty at once with one key store one message.
#[tokio::test]
async fn one_key_sent_by_twenty_at_once_is_one_message() -> Result<()> {
    let db = Db::new().await;
    let client = db.client().await;
    client.start(collects(2)).id("c").await?;
    let sends = (0..20).map(|n| client.send("c", WORD, n.to_string()).key("same").into_future());
    futures::future::try_join_all(sends).await?;
    assert_eq!(db.count("select count(*) from durable.message").await, 1);
    Ok(())
}

#[tokio::test]
async fn a_message_to_nobody_is_a_clear_error() -> Result<()> {
    let db = Db::new().await;
    let durable = collector(&db).await?;
    let unknown = durable.send("nobody", WORD, "x".into()).await.unwrap_err();
    assert!(unknown.is_not_found() && unknown.to_string().contains("no such workflow"), "{unknown}");

    durable.start(collects(0)).id("done").await?.soon().await?;
    let finished = durable.send("done", WORD, "x".into()).await.unwrap_err();
    assert_eq!(finished.kind(), ErrorKind::Finished);
    assert!(finished.to_string().contains("completed"), "{finished}");
    assert_eq!(db.count("select count(*) from durable.message").await, 0);
    Ok(())
}

#[workflow]
async fn impatient(ctx: &Ctx, patience: Duration) -> Result<Vec<Option<String>>> {
    let first = ctx.receive(WORD).timeout(patience).await?;
    ctx.run(work("between".into())).await?;
    let second = ctx.receive(WORD).timeout(hours(5)).await?;
    Ok(vec![first, second])
}

/// P7: a receive that timed out stays so, although a message came before the body was recovered.
#[tokio::test]
async fn a_time_out_gives_none_and_stays_so_after_a_recovery() -> Result<()> {
    let db = Db::new().await;
    let clock = db.clock().await;
    let kit = Kit::default();
    let builder = || db.builder().register(impatient).state(kit.clone());
    let first = Island::start(builder()).await;
    first.durable().start(impatient(hours(1))).id("i").await?;
    db.until_status("i", "suspended").await;
    assert_eq!(kit.log.entries(), [""; 0]);
    clock.advance(minutes(61)).await?;
    db.until("select status = 'suspended' and exists (select from durable.step where seq = 1) from durable.workflow")
        .await;
    first.sink().await;

    let client = db.client().await;
    client.send("i", WORD, "late".into()).await?;
    clock.advance(minutes(1)).await?;
    let second = builder().start().await?;
    let got = second.workflow::<Vec<Option<String>>>("i").soon().await?;
    assert_eq!(got, [None, Some("late".to_owned())]);
    assert_eq!(kit.log.entries(), ["between"]);
    Ok(())
}

#[tokio::test]
async fn a_short_time_out_stays_in_memory_and_gives_none() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(impatient).state(Kit::default()).start().await?;
    let handle = durable.start(impatient(Duration::from_millis(5))).id("i").await?;
    db.until("select exists (select from durable.step where seq = 1)").await;
    durable.send("i", WORD, "in time".into()).await?;
    assert_eq!(handle.soon().await?, [None, Some("in time".to_owned())]);
    Ok(())
}

#[workflow]
async fn wants_a_number_gets_a_word(ctx: &Ctx) -> Result<(String, String)> {
    let failure = ctx.receive(WORD_AS_NUMBER).await.expect_err("a word is no number");
    assert_eq!(failure.kind(), FailureKind::Value);
    let next = ctx.receive(WORD).await?;
    Ok((failure.message(), next))
}

/// P7: a message of another shape fails its receive, says so without quoting it, and is not seen again.
#[tokio::test]
async fn a_message_of_the_wrong_type_fails_its_receive_and_counts_as_received() -> Result<()> {
    let db = Db::new().await;
    let durable = db.builder().register(wants_a_number_gets_a_word).start().await?;
    let handle = durable.start(wants_a_number_gets_a_word()).id("w").await?;
    durable.send("w", WORD, "secret".into()).await?;
    durable.send("w", WORD, "next".into()).await?;
    let (message, next) = handle.soon().await?;
    assert_eq!(next, "next");
    assert!(message.contains("topic \"word\"") && message.contains("does not decode as i64"), "{message}");
    assert!(!message.contains("secret"), "{message}");
    Ok(())
}

/// P5: a message in a transaction is sent if, and only if, it commits.
#[tokio::test]
async fn a_message_in_a_transaction_is_sent_when_it_commits() -> Result<()> {
    let db = Db::new().await;
    let durable = collector(&db).await?;
    let handle = durable.start(collects(1)).id("c").await?;
    db.until_status("c", "suspended").await;

    let mut tx = db.pool.begin().await?;
    durable.send("c", WORD, "never".into()).in_tx(&mut tx).await?;
    tx.rollback().await?;
    assert_eq!(handle.status().await?, Status::Suspended);
    assert_eq!(db.count("select wakes + (select count(*) from durable.message) from durable.workflow").await, 0);

    let mut tx = db.pool.begin().await?;
    durable.send("c", WORD, "sent".into()).in_tx(&mut tx).await?;
    tx.commit().await?;
    assert_eq!(handle.soon().await?, ["sent"]);
    Ok(())
}
