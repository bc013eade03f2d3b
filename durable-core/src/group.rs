//! Natural batching: what many tasks want written at the same time goes into one statement.
//!
//! There is no timer. Alone, an item is sent at once; under load a batch is what came in during the previous round
//! trip. Nothing is acknowledged before its commit. What the items are, and how they are written, is their owner's:
//! the worker's committer and the starts of `starting`.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::Error;

/// Rows and bytes in one statement: what fits a round trip of some milliseconds.
const BATCH_ROWS_MAX: usize = 1_000;
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// What may wait in line for each writer; more of it waits for a place.
const LINE_ITEMS_MAX: usize = 4_096;
const LINE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How the bytes in line are counted.
const BYTES_PER_PERMIT: usize = 1_024;

/// Something that can be written together with others of its kind.
pub(crate) trait Item: Send + 'static {
    /// What whoever gave it is told.
    type Answer: Send + 'static;

    /// Its rows.
    fn rows(&self) -> usize;

    /// Its size on the wire, about.
    fn bytes(&self) -> usize;
}

/// Writes items in one statement.
pub(crate) trait Writer<I: Item>: Send + Sync + 'static {
    /// Write these, however long the database takes, and answer for each, in order; `None` when nobody may write any
    /// more. An error is the database's refusal of the whole: each part of it will be tried apart.
    fn write(&self, items: &[I]) -> impl Future<Output = Result<Option<Vec<I::Answer>>, Error>> + Send;
}

/// One line of items to a writer.
pub(crate) struct Group<I: Item> {
    line: mpsc::Sender<InLine<I>>,
    room: Arc<Semaphore>,
}

struct InLine<I: Item> {
    item: I,
    reply: oneshot::Sender<Result<(I, I::Answer), Error>>,
    _room: Room,
}

/// Where the answer to an item comes, with the item; nothing comes when nobody may write any more.
pub(crate) type Answer<I> = oneshot::Receiver<Result<(I, <I as Item>::Answer), Error>>;

/// The place in line of an item that is large enough to count; the number of items bounds the small ones.
type Room = Option<OwnedSemaphorePermit>;

impl<I: Item> Group<I> {
    /// Start a writer. It ends with the group.
    pub(crate) fn new(writer: impl Writer<I>) -> Self {
        let (line, items) = mpsc::channel(LINE_ITEMS_MAX);
        tokio::spawn(serve(writer, items));
        Self { line, room: Arc::new(Semaphore::new(LINE_BYTES_MAX / BYTES_PER_PERMIT)) }
    }

    /// How many items wait for the next statement.
    pub(crate) fn in_line(&self) -> usize {
        LINE_ITEMS_MAX - self.line.capacity()
    }

    /// Have an item written, and wait for its answer, with which it comes back. `None` when nobody may write any more;
    /// it is then not known whether it was written.
    pub(crate) async fn write(&self, item: I) -> Result<Option<(I, I::Answer)>, Error> {
        match self.put(item).await {
            Some(answer) => answer.await.map_or(Ok(None), |answer| answer.map(Some)),
            None => Ok(None),
        }
    }

    /// Put an item in line, behind all that were put there before. Answers where its answer will come.
    pub(crate) async fn put(&self, item: I) -> Option<Answer<I>> {
        let permits = (item.bytes() / BYTES_PER_PERMIT).min(LINE_BYTES_MAX / BYTES_PER_PERMIT);
        let room = match u32::try_from(permits).unwrap_or(u32::MAX) {
            0 => None,
            permits => Some(self.room.clone().acquire_many_owned(permits).await.expect("the room is never closed")),
        };
        let (reply, answer) = oneshot::channel();
        self.line.send(InLine { item, reply, _room: room }).await.is_ok().then_some(answer)
    }
}

async fn serve<I: Item>(writer: impl Writer<I>, mut line: mpsc::Receiver<InLine<I>>) {
    while let Some(first) = line.recv().await {
        // Whoever was answered by the previous statement has just been woken, and is about to come again: let them, so
        // that the batch is all of them and not the quickest one.
        tokio::task::yield_now().await;
        let (items, replies) = fill(first, &mut line);
        write(&writer, items, replies).await;
    }
}

type Reply<I> = oneshot::Sender<Result<(I, <I as Item>::Answer), Error>>;
type Replies<I> = Vec<(Reply<I>, Room)>;

/// A batch: the first item, and what else is in line, within the bounds.
fn fill<I: Item>(first: InLine<I>, line: &mut mpsc::Receiver<InLine<I>>) -> (Vec<I>, Replies<I>) {
    let (mut rows, mut bytes) = (0, 0);
    let (mut items, mut replies) = (Vec::new(), Vec::new());
    let mut next = Some(first);
    while let Some(InLine { item, reply, _room: room }) = next {
        rows += item.rows();
        bytes += item.bytes();
        items.push(item);
        replies.push((reply, room));
        next = if rows < BATCH_ROWS_MAX && bytes < BATCH_BYTES_MAX { line.try_recv().ok() } else { None };
    }
    (items, replies)
}

/// Write a batch and answer for it. When the database refuses it, each half is tried apart, so that an item which
/// cannot be written takes no other with it.
async fn write<I: Item>(writer: &impl Writer<I>, mut items: Vec<I>, mut replies: Replies<I>) {
    match writer.write(&items).await {
        Ok(Some(answers)) => {
            // Nobody waits for the answer to an item whose giver was dropped.
            for ((item, answer), (reply, _)) in items.into_iter().zip(answers).zip(replies) {
                drop(reply.send(Ok((item, answer))));
            }
        }
        // Dropping the replies says it.
        Ok(None) => {}
        // What will pass is not the fault of one of them.
        Err(error) if items.len() == 1 || error.is_transient() => {
            replies.into_iter().for_each(|(reply, _)| drop(reply.send(Err(error.clone()))));
        }
        Err(_) => {
            let half = items.len() / 2;
            let (rest, rest_replies) = (items.split_off(half), replies.split_off(half));
            Box::pin(write(writer, items, replies)).await;
            Box::pin(write(writer, rest, rest_replies)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::error::ErrorKind;

    impl Item for u32 {
        type Answer = u32;
        fn rows(&self) -> usize {
            1
        }
        fn bytes(&self) -> usize {
            usize::try_from(*self).unwrap_or_default()
        }
    }

    /// Doubles what it is given, and refuses every batch with a 13 in it.
    struct Doubler {
        batches: Arc<Mutex<Vec<usize>>>,
        go: Arc<Semaphore>,
    }

    impl Writer<u32> for Doubler {
        async fn write(&self, items: &[u32]) -> Result<Option<Vec<u32>>, Error> {
            self.go.acquire().await.unwrap().forget();
            self.batches.lock().unwrap().push(items.len());
            if items.contains(&13) {
                return Err(Error::new(ErrorKind::Database, "unlucky"));
            }
            Ok(Some(items.iter().map(|item| item * 2).collect()))
        }
    }

    type Batches = Arc<Mutex<Vec<usize>>>;

    fn group(go: usize) -> (Arc<Group<u32>>, Batches, Arc<Semaphore>) {
        let (batches, go) = (Batches::default(), Arc::new(Semaphore::new(go)));
        (Arc::new(Group::new(Doubler { batches: batches.clone(), go: go.clone() })), batches, go)
    }

    async fn all(group: &Arc<Group<u32>>, items: impl Iterator<Item = u32>) -> Vec<Option<u32>> {
        let written = items.map(|item| {
            let group = group.clone();
            tokio::spawn(async move { group.write(item).await.ok().flatten().map(|(_, answer)| answer) })
        });
        futures_util::future::join_all(written.collect::<Vec<_>>()).await.into_iter().map(Result::unwrap).collect()
    }

    #[tokio::test]
    async fn what_comes_together_is_written_together_and_each_gets_its_own_answer() {
        let (group, batches, _go) = group(100);
        assert_eq!(all(&group, 20..60).await, (20..60).map(|n| Some(n * 2)).collect::<Vec<_>>());
        assert_eq!(*batches.lock().unwrap(), [40]);
        assert_eq!(group.write(1).await.unwrap(), Some((1, 2)));
        assert_eq!(*batches.lock().unwrap(), [40, 1]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_takes_no_other_with_it() {
        let (group, _, _go) = group(100);
        let answers = all(&group, 0..64).await;
        assert_eq!(answers[13], None);
        assert_eq!(answers.iter().flatten().count(), 63);
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_rows_and_in_bytes() {
        let (group, batches, _go) = group(100);
        all(&group, std::iter::repeat_n(1, 2_500)).await;
        assert!(batches.lock().unwrap().iter().all(|batch| *batch <= BATCH_ROWS_MAX));
        batches.lock().unwrap().clear();
        all(&group, std::iter::repeat_n(300 * 1_024, 16)).await;
        assert_eq!(*batches.lock().unwrap(), [4, 4, 4, 4]);
    }

    #[tokio::test]
    async fn what_is_in_line_is_bounded_in_bytes() {
        let (group, _, go) = group(0);
        let third = u32::try_from(LINE_BYTES_MAX / 3).unwrap();
        let writers: Vec<_> = (0..9)
            .map(|_| {
                tokio::spawn({
                    let group = group.clone();
                    async move { group.write(third).await }
                })
            })
            .collect();
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        assert!(group.room.available_permits() * BYTES_PER_PERMIT < LINE_BYTES_MAX / 3);
        assert!(group.line.capacity() >= LINE_ITEMS_MAX - 3);
        go.add_permits(100);
        for writer in writers {
            assert_eq!(writer.await.unwrap().unwrap(), Some((third, third * 2)));
        }
    }
}
