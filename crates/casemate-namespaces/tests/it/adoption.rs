//! adoption
pub async fn hold(_: &str, _: &str) {}
