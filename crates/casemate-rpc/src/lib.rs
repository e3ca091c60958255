//! casemate-rpc.
