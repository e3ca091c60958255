//! Each case on a history of its own.

mod sqlite {
    use casemate_history::testing::TempHistory;

    async fn open() -> Option<TempHistory> {
        Some(TempHistory::open().await)
    }

    casemate_history::history_conformance!(open);
}

mod postgres {
    use casemate_history::testing::TempPostgresHistory;

    casemate_history::history_conformance!(TempPostgresHistory::open);
}
