//! What one attempt of a step writes to streams while it runs: bounded, in order, and all of it before its outcome.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::codec;
use crate::error::Error;
use crate::failure::{Failure, FailureKind};
use crate::group::Answer;
use crate::id::{Position, check_text};
use crate::lines::{Entry, Lines, Placed, Source};
use crate::stream::{STREAM_BYTES_MAX, Stream};

/// How much of an attempt may be on its way: so many KiB, and a small value counts as one.
const ROOM: u32 = 1_024;

/// Why values of an attempt could not be written, which ends the attempt of the workflow.
#[derive(Clone, Debug)]
pub(crate) enum Dry {
    /// The workflow has another owner, or this one ends.
    Lost,
    Broken(String),
}

/// The values of one attempt of a step.
pub(crate) struct Outflow {
    lines: Arc<Lines>,
    position: Position,
    attempt: u32,
    /// Made with the first value.
    flow: OnceLock<Flow>,
}

struct Flow {
    room: Arc<Semaphore>,
    on_their_way: mpsc::UnboundedSender<(Answer<Entry>, OwnedSemaphorePermit)>,
    dry: Arc<Mutex<Option<Dry>>>,
}

impl Flow {
    fn begin(runtime: &tokio::runtime::Handle) -> Self {
        let (on_their_way, mut answers) = mpsc::unbounded_channel::<(Answer<Entry>, OwnedSemaphorePermit)>();
        let dry = Arc::<Mutex<Option<Dry>>>::default();
        let found = dry.clone();
        runtime.spawn(async move {
            while let Some((answer, _room)) = answers.recv().await {
                let why = match answer.await {
                    Ok(Ok((_, Placed::At(..)))) => continue,
                    Ok(Ok((_, Placed::Refused))) | Err(_) => Dry::Lost,
                    Ok(Err(error)) => Dry::Broken(error.to_string()),
                };
                found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
            }
        });
        Self { room: Arc::new(Semaphore::new(ROOM as usize)), on_their_way, dry }
    }

    fn dry(&self) -> Option<Dry> {
        self.dry.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Outflow {
    pub(crate) fn new(lines: &Arc<Lines>, position: &Position, attempt: u32) -> Arc<Self> {
        Arc::new(Self { lines: lines.clone(), position: position.clone(), attempt, flow: OnceLock::new() })
    }

    /// As it was before the first value, for another transaction of the same attempt.
    pub(crate) fn again(&self) -> Arc<Self> {
        Self::new(&self.lines, &self.position, self.attempt)
    }

    async fn write(&self, key: &'static str, value: String) -> Result<(), Failure> {
        let flow = self.flow.get_or_init(|| Flow::begin(self.lines.runtime()));
        let kib = u32::try_from(value.len() / 1_024).unwrap_or(ROOM);
        let Ok(room) = flow.room.clone().acquire_many_owned((1 + kib).min(ROOM)).await else {
            return Err(refusal(format!("a value came for stream {key:?} after its step had ended")));
        };
        stopped(key, flow.dry())?;
        let entry = Entry { value, source: Source::Step(self.position.clone(), self.attempt) };
        match self.lines.to(key).put(entry).await {
            // Nobody hears of it only when the runtime ends.
            Some(answer) => drop(flow.on_their_way.send((answer, room))),
            None => stopped(key, Some(Dry::Lost))?,
        }
        Ok(())
    }

    async fn flush(&self, key: &str) -> Result<(), Failure> {
        let Some(flow) = self.flow.get() else { return Ok(()) };
        // Room for all is there once nothing is on its way. When it is closed, that was so before.
        drop(flow.room.acquire_many(ROOM).await);
        stopped(key, flow.dry())
    }

    /// The body has ended: wait until all that it wrote stands, and let nothing come after.
    pub(crate) async fn end(&self) -> Result<(), Dry> {
        let Some(flow) = self.flow.get() else { return Ok(()) };
        drop(flow.room.acquire_many(ROOM).await);
        flow.room.close();
        flow.dry().map_or(Ok(()), Err)
    }
}

fn refusal(problem: String) -> Failure {
    Failure::new(FailureKind::Error, problem)
}

fn stopped(key: &str, dry: Option<Dry>) -> Result<(), Failure> {
    match dry {
        None => Ok(()),
        Some(Dry::Lost) => Err(refusal(format!("stream {key:?} is written by another worker by now"))),
        Some(Dry::Broken(problem)) => Err(refusal(format!("could not write to stream {key:?}: {problem}"))),
    }
}

/// Refuse what no stream can take. Answers the JSON of the value.
pub(crate) fn check_value<T: Serialize + DeserializeOwned>(key: &str, value: &T) -> Result<String, Failure> {
    check_text("name of a stream", key).map_err(|error: Error| refusal(error.to_string()).terminal())?;
    let wrong = |problem: String| Failure::new(FailureKind::Value, problem).terminal();
    let (text, _) = codec::encode(value).map_err(|problem| wrong(format!("a value of stream {key:?} {problem}")))?;
    if text.len() > STREAM_BYTES_MAX {
        return Err(wrong(format!(
            "a value of stream {key:?} has {} bytes, at most {STREAM_BYTES_MAX} are allowed: write it in parts, or where it is \
             to be found",
            text.len()
        )));
    }
    Ok(text)
}

/// A stream that a step writes to. Made by [`StepCtx::stream`](crate::StepCtx::stream).
pub struct StepStream<T> {
    outflow: Arc<Outflow>,
    stream: Stream<T>,
}

impl<T> StepStream<T> {
    pub(crate) fn new(outflow: Arc<Outflow>, stream: Stream<T>) -> Self {
        Self { outflow, stream }
    }
}

impl<T: Serialize + DeserializeOwned> StepStream<T> {
    /// Write a value. It is on its way when this returns, behind those that were written before; this waits only while 1,024
    /// values, or 1 MiB of them, are. Readers see it a round trip later, and at the latest before the step's outcome stands.
    ///
    /// # Errors
    ///
    /// A value that does not survive being stored or has more than 1 MiB of JSON, a name that no stream can have; and, for a
    /// step that will not be asked for its outcome any more, that its workflow runs elsewhere by now.
    pub async fn write(&self, value: T) -> Result<(), Failure> {
        let key = self.stream.key();
        let value = check_value(key, &value)?;
        self.outflow.write(key, value).await
    }

    /// Wait until all that this attempt has written stands. The end of the step does so, too.
    ///
    /// # Errors
    ///
    /// As for [`write`](Self::write).
    pub async fn flush(&self) -> Result<(), Failure> {
        self.outflow.flush(self.stream.key()).await
    }
}

impl<T> Clone for StepStream<T> {
    fn clone(&self) -> Self {
        Self { outflow: self.outflow.clone(), stream: self.stream }
    }
}

impl<T> std::fmt::Debug for StepStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StepStream({:?} of the step at {})", self.stream.key(), self.outflow.position)
    }
}
