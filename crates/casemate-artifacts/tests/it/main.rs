//! Artifacts in a folder, in memory and in emulated clouds; and in ones that fail.
//!
//! Emulators: `CASEMATE_TEST_MOTO` names moto's server, `CASEMATE_TEST_AZURITE` Azurite's. A test
//! that lacks one says that it skips, which is a failure in `scripts/test`.

mod bounds;
mod cached;
mod conformance;
mod emulator;
mod faults;
mod full;
mod identity;
mod killed;
mod place;
mod proxy;
mod secure;
mod sweeping;
