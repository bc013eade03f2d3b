//! What is measured of the library. The limits beside it are in `limits` and `bare`.

pub(crate) mod closed;
