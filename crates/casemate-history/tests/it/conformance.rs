use casemate_history::testing::TempHistory;

casemate_history::history_conformance!(TempHistory::open);
