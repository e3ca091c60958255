//! Paths of envd that belong to the control plane and never leave the platform (`api.md` 4.2).

use percent_encoding::percent_decode_str;

const RESERVED: [&str; 7] = [
    "/init",
    "/freeze",
    "/unfreeze",
    "/fsfreeze",
    "/fsthaw",
    "/collapse",
    "/upgrade",
];

/// The reserved path that a request's raw path means once decoded and cleaned, if it means one.
pub(crate) fn reserved_path(raw: &str) -> Option<&'static str> {
    // The common case must cost nothing: without these, cleaning changes nothing.
    if !raw.contains(['%', '.']) && !raw.contains("//") && !raw.ends_with('/') {
        return find(raw.as_bytes());
    }
    let decoded: Vec<u8> = percent_decode_str(raw).collect();
    find(&cleaned(&decoded))
}

fn find(path: &[u8]) -> Option<&'static str> {
    RESERVED.into_iter().find(|r| r.as_bytes() == path)
}

/// Resolves `//`, `.` and `..` and drops a trailing slash; the result begins with a slash.
fn cleaned(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in path.split(|b| *b == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                kept.pop();
            }
            other => kept.push(other),
        }
    }
    let mut out = vec![b'/'];
    out.extend(kept.join(&b'/'));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: Option<&str>) {
        assert_eq!(reserved_path(path), expected, "path {path:?}");
    }

    #[test]
    fn every_spelling_of_a_reserved_path_is_found() {
        for path in RESERVED {
            check(path, Some(path));
        }
        for path in [
            "//init",
            "/init/",
            "/./init",
            "/files/../init",
            "/files/..//init",
            "/../../init",
            "/%69nit",
            "/%69%6E%69%74",
            "/files%2F..%2Finit",
            "/files/%2e%2e/init",
            "/%2finit",
            "/init%2f",
            "init/.",
        ] {
            check(path, Some("/init"));
        }
    }

    #[test]
    fn other_paths_pass() {
        for path in [
            "/",
            "",
            "*",
            "/health",
            "/files",
            "/initial",
            "/init/more",
            "/INIT",
            "/init.txt",
            "/x/init",
            "/%2569nit",
            "/init/%2e%2e",
            "/%ff",
            "/%zz",
            "/process.Process/Start",
        ] {
            check(path, None);
        }
    }
}
