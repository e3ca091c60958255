-- Samples as they came, before they become chunks; see src/sql/young.rs. What is in sample_batches,
-- which had all sandboxes of a moment in one row and no order, becomes chunks when the file is opened.
CREATE TABLE young_samples (
    number  INTEGER PRIMARY KEY,
    lane    INTEGER NOT NULL,
    from_at INTEGER NOT NULL,
    to_at   INTEGER NOT NULL,
    samples BLOB NOT NULL
);
CREATE INDEX young_samples_lane ON young_samples (lane, to_at);
CREATE INDEX young_samples_to_at ON young_samples (to_at);
