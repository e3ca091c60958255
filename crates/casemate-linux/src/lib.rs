//! casemate-linux.
