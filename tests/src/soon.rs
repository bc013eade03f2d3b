//! Results that have to come, within a bound: a wake-up that was lost fails the test and says where, instead of hanging.

use durable::{Error, Handle};
use serde::de::DeserializeOwned;

use crate::db::PATIENCE;

/// A result that has to come.
pub trait Soon<T> {
    /// As [`Handle::result`]; panics when it has not come within [`PATIENCE`].
    fn soon(&self) -> impl Future<Output = Result<T, Error>> + Send;
}

impl<T: DeserializeOwned> Soon<T> for Handle<T> {
    async fn soon(&self) -> Result<T, Error> {
        if let Ok(result) = tokio::time::timeout(PATIENCE, self.result()).await {
            return result;
        }
        let stands = self.status().await.map_or_else(|error| error.to_string(), |status| status.to_string());
        panic!("workflow {} did not end in {PATIENCE:?}: {stands}", self.id())
    }
}
