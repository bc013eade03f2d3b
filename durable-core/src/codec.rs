//! How values become text and come back: JSON, decoded once before it may be committed.
//!
//! serde_json writes what it cannot read again (NaN becomes null, nesting goes past 128), so a value counts
//! as encoded only when its own text decoded.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The largest value, in bytes of JSON. A row has to pass through memory several times, here and in the
/// server; what is larger belongs in an object store, with its address in the workflow.
pub(crate) const VALUE_MAX: usize = 32 * 1024 * 1024;

/// A value as it is stored, and why it cannot be.
pub(crate) type Encoded = Result<String, String>;

/// Encode a value, and prove that it can be read again: by reading it, and giving what was read.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(value: &T) -> Result<(String, T), String> {
    let text = encode_unproved(value)?;
    let read = serde_json::from_str::<T>(&text)
        .map_err(|e| format!("does not survive being stored: its own JSON does not decode again: {e}"))?;
    Ok((text, read))
}

/// Encode arguments. They are decoded for every attempt anyway, which proves them.
pub(crate) fn encode_unproved<T: Serialize>(value: &T) -> Encoded {
    let text = serde_json::to_string(value).map_err(|e| format!("does not encode as JSON: {e}"))?;
    check_size(&text)?;
    Ok(text)
}

fn check_size(text: &str) -> Result<(), String> {
    if text.len() > VALUE_MAX {
        return Err(format!(
            "is {} bytes of JSON, at most {VALUE_MAX} can be stored: keep it elsewhere and store its address",
            text.len()
        ));
    }
    Ok(())
}

/// Decode a stored value.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| {
        // serde's message may quote the value; its category and place do not.
        format!(
            "does not decode as {}: {} at column {}",
            std::any::type_name::<T>(),
            match e.classify() {
                serde_json::error::Category::Io => "unreadable",
                serde_json::error::Category::Syntax => "not JSON of this shape",
                serde_json::error::Category::Data => "another shape",
                serde_json::error::Category::Eof => "cut short",
            },
            e.column()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[test]
    fn what_can_be_read_again_is_encoded() {
        assert_eq!(encode(&i128::MIN).unwrap(), (i128::MIN.to_string(), i128::MIN));
        assert_eq!(encode(&u64::MAX).unwrap(), (u64::MAX.to_string(), u64::MAX));
        let (text, read) = encode(&"a\0b".to_owned()).unwrap();
        assert_eq!((&*read, &*decode::<String>(&text).unwrap()), ("a\0b", "a\0b"));
    }

    #[test]
    fn what_cannot_be_read_again_is_refused() {
        assert!(encode(&f64::NAN).unwrap_err().contains("does not decode again"));
        assert!(encode(&f64::INFINITY).is_err());

        #[derive(Serialize, Deserialize)]
        struct Deep(Option<Box<Deep>>, Vec<u8>);
        let deep = (0..200).fold(Deep(None, vec![]), |inner, _| Deep(Some(Box::new(inner)), vec![]));
        assert!(encode(&deep).err().unwrap().contains("recursion"));

        let long = "x".repeat(VALUE_MAX);
        assert!(encode(&long).unwrap_err().contains("at most"));
    }
}
