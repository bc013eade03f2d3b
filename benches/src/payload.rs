//! What steps return in every workload and every limit: JSON of a given size.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// The output of a step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) n: u32,
    pub(crate) text: String,
}

/// Bytes of a page's JSON beside its text.
const FRAME: usize = r#"{"n":3,"text":""}"#.len();

impl Page {
    /// A page of so many bytes of JSON.
    pub(crate) fn of(n: u32, bytes: usize) -> Self {
        Self { n, text: text(bytes.saturating_sub(FRAME)) }
    }
}

/// The same as text.
pub(crate) fn payload(bytes: usize) -> String {
    serde_json::json!({ "n": 3, "text": Page::of(3, bytes).text }).to_string()
}

/// The beginning of a long text that is made once, so that making it is no part of what is measured.
fn text(bytes: usize) -> String {
    static LONG: OnceLock<String> = OnceLock::new();
    let long = LONG.get_or_init(|| letters(256 * 1024));
    long.get(..bytes).unwrap_or(long).to_owned()
}

/// Letters that compress about as well as base64 does, so that large ones are not stored for nothing.
fn letters(count: usize) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(LETTERS[(state >> 32 & 63) as usize])
    });
    random.take(count).collect()
}
