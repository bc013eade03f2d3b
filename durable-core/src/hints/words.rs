//! What processes tell each other, as text: who speaks, then a word a line. Pure.

use uuid::Uuid;

use crate::id::DEFAULT_SCHEMA;
use crate::wake::Word;

/// Bytes of a text. The server refuses 8,000.
const TEXT_MAX: usize = 7_900;

/// Bytes of a channel's name that the server takes.
const CHANNEL_MAX: usize = 63;

/// The channel of a schema.
pub(super) fn channel(schema: &str) -> String {
    let name = format!("{DEFAULT_SCHEMA}_{schema}");
    if name.len() <= CHANNEL_MAX { name } else { format!("{DEFAULT_SCHEMA}_{:016x}", hash(schema)) }
}

fn hash(text: &str) -> u64 {
    crate::id::Id::trusted(text).digest()
}

/// The text that is being made, word by word.
pub(super) struct Text {
    text: String,
}

impl Text {
    pub(super) fn new(speaker: u64) -> Self {
        Self { text: format!("{speaker:016x}") }
    }

    /// Whether there is room for another word, which is added then.
    pub(super) fn add(&mut self, word: &Word) -> bool {
        let line = match word {
            Word::Due(queue) => format!("\nd{queue}"),
            Word::Soon(queue) => format!("\ns{queue}"),
            Word::Message(hash) => format!("\nm{hash:016x}"),
            Word::Wanted(hash) => format!("\nw{hash:016x}"),
            Word::Ended(hash) => format!("\ne{hash:016x}"),
            Word::Stopping(owner) => format!("\nc{owner}"),
        };
        let fits = self.text.len() + line.len() <= TEXT_MAX;
        if fits {
            self.text.push_str(&line);
        }
        fits
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// The words of others in a text. What cannot be read is left out: another version may say more, and anybody may
/// write to a channel.
pub(super) fn words(text: &str, myself: u64) -> Vec<Word> {
    let mut lines = text.split('\n');
    let speaker = lines.next().and_then(number);
    if speaker.is_none() || speaker == Some(myself) {
        return Vec::new();
    }
    lines.filter_map(word).collect()
}

fn word(line: &str) -> Option<Word> {
    let kind = line.chars().next()?;
    let rest = &line[kind.len_utf8()..];
    match kind {
        'd' => Some(Word::Due(rest.to_owned())),
        's' => Some(Word::Soon(rest.to_owned())),
        'm' => number(rest).map(Word::Message),
        'w' => number(rest).map(Word::Wanted),
        'e' => number(rest).map(Word::Ended),
        'c' => Uuid::parse_str(rest).ok().map(Word::Stopping),
        _ => None,
    }
}

fn number(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Word> {
        vec![
            Word::Due("default".into()),
            Word::Soon("Bestellungen ß 🦀".into()),
            Word::Message(0),
            Word::Wanted(u64::MAX),
            Word::Ended(42),
            Word::Stopping(Uuid::from_u128(7)),
        ]
    }

    #[test]
    fn words_are_read_as_they_were_said_by_all_but_the_speaker() {
        let mut text = Text::new(1);
        assert!(some().iter().all(|word| text.add(word)));
        assert_eq!(words(text.as_str(), 2), some());
        assert_eq!(words(text.as_str(), 1), []);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for text in ["", "x", "\n", "0000000000000002\n\nz1\nwxyz\nc1\n🦀", "durable"] {
            assert_eq!(words(text, 1), [], "{text:?}");
        }
        assert_eq!(words("2\nq?\nea", 1), [Word::Ended(10)]);
    }

    #[test]
    fn a_text_stays_below_what_the_server_refuses() {
        let mut text = Text::new(1);
        let fit = (0..1_000).take_while(|n| text.add(&Word::Ended(*n))).count();
        assert!(fit > 400 && text.as_str().len() < 8_000, "{fit}");
        assert_eq!(words(text.as_str(), 2).len(), fit);
    }

    #[test]
    fn a_channel_has_a_name_that_the_server_takes() {
        assert_eq!(channel("durable"), "durable_durable");
        let (long, other) = (channel(&"x".repeat(63)), channel(&"x".repeat(62)));
        assert!(long.len() <= CHANNEL_MAX && long != other, "{long} {other}");
    }
}
