//! How an attempt ended, and what that means for its workflow. Pure: the one place where it is decided.

use crate::failure::{Failure, FailureKind};
use crate::history::Mismatch;
use crate::status::Status;

/// What the engine does to a body from outside. The body never sees it.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Stop {
    /// The code does not fit the history, or breaks a rule of the context.
    Mismatch(Mismatch),
    /// A step has a limit that nobody has declared.
    Undeclared(Mismatch),
    /// Another worker may own the workflow by now.
    Lost,
    /// Somebody cancelled it.
    Cancelled,
    /// A former owner's record came in between, and the body was given another outcome: it begins again, from the
    /// history.
    Overtaken,
    /// This process cannot go on with it, through no fault of the workflow.
    Broken(String),
    /// The body has asked to begin anew, with another input.
    Continued(Next),
}

/// What a workflow that continues as new goes on with.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Next {
    pub(crate) version: i32,
    /// As JSON.
    pub(crate) input: String,
}

/// What a body came to: its output's JSON, or how it failed.
pub(crate) type Returns = Result<String, Failure>;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Returned(Returns),
    Panicked(String),
    Stopped(Stop),
    /// Cut off by a cancellation or a deadline, with what that says; run only as far as it had come.
    Cut(Ending),
}

/// How a workflow ends that does not end by its body, while its undo steps are run.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Ending {
    pub(crate) status: Status,
    pub(crate) failure: Failure,
}

/// The end of a workflow, or of an attempt that is blocked, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) status: Status,
    pub(crate) output: Option<String>,
    pub(crate) failure: Option<String>,
}

/// What is to be done about it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Write its end.
    Settled(End),
    /// Say that it has stopped: the row has its final status already.
    Acknowledged,
    /// Nothing: whoever owns it now will see to it.
    Dropped,
    /// Give it back, to be run again at once.
    GivenBack,
    /// Give it back after something went wrong here.
    Released(String),
    /// Forget its history and begin anew.
    Continued(Next),
    /// Give it back for newer code, which its history may be by; with the end that it has should there be none.
    Misfit(End),
}

/// Decide what the end of an attempt means. `left_over` tells whether the history holds what the body never
/// asked for; that matters only once the body is through.
pub(crate) fn decide(ended: Ended, left_over: Result<(), Mismatch>) -> Outcome {
    match (ended, left_over) {
        (Ended::Stopped(Stop::Mismatch(mismatch) | Stop::Undeclared(mismatch)), _)
        | (Ended::Returned(_) | Ended::Cut(_) | Ended::Stopped(Stop::Continued(_)), Err(mismatch)) => {
            Outcome::Settled(blocked(&mismatch))
        }
        (Ended::Stopped(Stop::Continued(next)), Ok(())) => Outcome::Continued(next),
        (Ended::Returned(Ok(output)), Ok(())) => {
            Outcome::Settled(End { status: Status::Completed, output: Some(output), failure: None })
        }
        (Ended::Returned(Err(failure)), Ok(())) => Outcome::Settled(failed(&failure)),
        (Ended::Cut(Ending { status, failure }), Ok(())) => {
            Outcome::Settled(End { status, output: None, failure: Some(to_json(&failure)) })
        }
        (Ended::Panicked(message), _) => Outcome::Settled(failed(&Failure::new(FailureKind::Panic, message))),
        (Ended::Stopped(Stop::Cancelled), _) => Outcome::Acknowledged,
        (Ended::Stopped(Stop::Lost), _) => Outcome::Dropped,
        (Ended::Stopped(Stop::Overtaken), _) => Outcome::GivenBack,
        (Ended::Stopped(Stop::Broken(problem)), _) => Outcome::Released(problem),
    }
}

fn blocked(mismatch: &Mismatch) -> End {
    let failure = Failure::new(FailureKind::Mismatch, mismatch.to_string());
    End { status: Status::Blocked, output: None, failure: Some(to_json(&failure)) }
}

fn failed(failure: &Failure) -> End {
    End { status: Status::Failed, output: None, failure: Some(to_json(failure)) }
}

/// A failure as it is stored.
pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("a failure is plain text and always encodes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(outcome: &Outcome) -> Option<Status> {
        match outcome {
            Outcome::Settled(end) => Some(end.status),
            Outcome::Acknowledged
            | Outcome::Dropped
            | Outcome::GivenBack
            | Outcome::Released(_)
            | Outcome::Continued(_)
            | Outcome::Misfit(_) => None,
        }
    }

    #[test]
    fn each_ending_has_its_outcome() {
        let failure = || Failure::new(FailureKind::Error, "no");
        let mismatch = || Mismatch("x".into());
        let continued = || Ended::Stopped(Stop::Continued(Next { version: 1, input: "1".into() }));
        let cut = || Ending { status: Status::Cancelled, failure: failure() };
        let table = [
            (Ended::Returned(Ok("1".into())), Ok(()), Some(Status::Completed)),
            (Ended::Returned(Err(failure())), Ok(()), Some(Status::Failed)),
            (Ended::Panicked("panicked: x".into()), Ok(()), Some(Status::Failed)),
            (Ended::Stopped(Stop::Mismatch(mismatch())), Ok(()), Some(Status::Blocked)),
            (Ended::Stopped(Stop::Undeclared(mismatch())), Ok(()), Some(Status::Blocked)),
            // A body that lost a step must not end, neither well nor badly.
            (Ended::Returned(Ok("1".into())), Err(mismatch()), Some(Status::Blocked)),
            (Ended::Returned(Err(failure())), Err(mismatch()), Some(Status::Blocked)),
            (Ended::Stopped(Stop::Lost), Err(mismatch()), None),
            (Ended::Stopped(Stop::Cancelled), Ok(()), None),
            (Ended::Stopped(Stop::Overtaken), Ok(()), None),
            (continued(), Ok(()), None),
            // Nor may it begin anew.
            (continued(), Err(mismatch()), Some(Status::Blocked)),
            (Ended::Cut(cut()), Ok(()), Some(Status::Cancelled)),
            (Ended::Cut(cut()), Err(mismatch()), Some(Status::Blocked)),
        ];
        for (ended, left_over, expected) in table {
            let shown = format!("{ended:?} {left_over:?}");
            assert_eq!(status(&decide(ended, left_over)), expected, "{shown}");
        }
    }
}
