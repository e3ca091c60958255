//! Each case on a database of its own.

use casemate_store::testing::TempStore;

casemate_store::store_conformance!(TempStore::open);
