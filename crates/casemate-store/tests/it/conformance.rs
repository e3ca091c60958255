//! Each case on a database of its own.

mod sqlite {
    use casemate_store::testing::TempStore;

    async fn open() -> Option<TempStore> {
        Some(TempStore::open().await)
    }

    casemate_store::store_conformance!(open);
}

mod postgres {
    use casemate_store::testing::TempPostgres;

    casemate_store::store_conformance!(TempPostgres::open);
}
