//! casemate-client.
