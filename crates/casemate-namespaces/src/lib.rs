//! casemate-namespaces.
