//! casemate-build.
