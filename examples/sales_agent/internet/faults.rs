//! The weather of the small internet: what goes wrong with which request.

use std::time::Duration;

use crate::dice::Dice;

/// Requests about one thing that may go wrong. Fewer than any step has attempts, so that bad luck
/// delays a lead and never ends it.
const FAULTS_MAX: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Slow(Duration),
    TooMany,
    Broken,
    ReplyLost,
}

impl Fault {
    /// What happens to the `nth` request (from 1) about `subject`.
    pub(super) fn of(seed: u64, subject: &str, nth: u32) -> Fault {
        let mut dice = Dice::new(seed, &format!("{subject} {nth}"));
        let luck = dice.between(0, 99);
        let delay = Duration::from_millis(dice.between(100, 900));
        match luck {
            0..8 if nth <= FAULTS_MAX => Fault::TooMany,
            8..15 if nth <= FAULTS_MAX => Fault::Broken,
            15..21 if nth <= FAULTS_MAX => Fault::ReplyLost,
            0..75 => Fault::Slow(delay),
            _ => Fault::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_request_about_a_thing_is_answered() {
        for subject in 0..500 {
            let fault = Fault::of(1, &subject.to_string(), FAULTS_MAX + 1);
            assert!(matches!(fault, Fault::None | Fault::Slow(_)), "{fault:?}");
        }
    }

    #[test]
    fn the_same_seed_brings_the_same_weather() {
        let week = |seed: u64| (0..50).map(|day: u32| Fault::of(seed, &day.to_string(), 1)).collect::<Vec<_>>();
        assert_eq!(week(7), week(7));
        assert_ne!(week(7), week(8));
    }
}
