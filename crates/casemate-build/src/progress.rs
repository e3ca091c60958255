//! How long work says where it is.

/// Receives progress. Both calls return quickly and never fail: the work does not depend on them.
pub trait Progress: Send + Sync {
    /// A new stage began; `percent` never falls within one piece of work.
    fn step(&self, percent: u8, stage: &str);

    /// One line of detail from the running stage.
    fn line(&self, text: &str);
}

/// Nobody is watching.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _percent: u8, _stage: &str) {}

    fn line(&self, _text: &str) {}
}
