//! Certificates of authorities that the platform adds to the sandbox's own.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use crate::guest::Guest;
use crate::paths::os_text;
use crate::route::blocking;

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// From here `update-ca-certificates` takes it into every bundle that it makes.
const EXTRA: &str = "/usr/local/share/ca-certificates/e2b-ca.crt";
/// How long a call waits for another one.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("CA install already in progress")]
    Busy,
    #[error("{what}: {}", os_text(.source))]
    File { what: String, source: io::Error },
    #[error("{0}")]
    Crashed(String),
}

/// Adds `pem` to the bundle, in place of the one added before.
pub async fn install(guest: &Guest, pem: String) -> Result<(), CaError> {
    let mut last = timeout(PATIENCE, guest.ca_turn.lock())
        .await
        .map_err(|_| CaError::Busy)?;
    let Some(pem) = normalised(&pem) else {
        return Ok(());
    };
    if last.as_deref() == Some(&pem) {
        return Ok(());
    }
    let (new, old) = (pem.clone(), last.clone());
    blocking(move || write(Path::new(BUNDLE), Path::new(EXTRA), &new, old.as_deref()))
        .await
        .map_err(|failure| CaError::Crashed(failure.message))??;
    *last = Some(pem);
    Ok(())
}

/// One newline at the end; `None`: there is nothing in it.
fn normalised(pem: &str) -> Option<String> {
    let trimmed = pem.trim_end_matches(['\n', '\r']);
    (!trimmed.trim().is_empty()).then(|| format!("{trimmed}\n"))
}

fn write(bundle: &Path, extra: &Path, pem: &str, old: Option<&str>) -> Result<(), CaError> {
    let at = |path: &Path| {
        let path = path.display().to_string();
        move |source| CaError::File { what: path, source }
    };
    let text = fs::read_to_string(bundle).map_err(at(bundle))?;
    if !text.contains(pem) {
        let separator = if text.is_empty() || text.ends_with('\n') {
            ""
        } else {
            "\n"
        };
        let mut file = OpenOptions::new()
            .append(true)
            .open(bundle)
            .map_err(at(bundle))?;
        file.write_all(format!("{separator}{pem}").as_bytes())
            .map_err(at(bundle))?;
    }
    if let Some(old) = old
        && old != pem
    {
        let text = fs::read_to_string(bundle).map_err(at(bundle))?;
        replace(bundle, &text.replace(old, "")).map_err(at(bundle))?;
    }
    if let Some(parent) = extra.parent() {
        fs::create_dir_all(parent).map_err(at(parent))?;
    }
    replace(extra, pem).map_err(at(extra))
}

/// Readers see the old text or the new one, nothing in between.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("e2b-new");
    fs::write(&temporary, text)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o644))?;
    fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_one_takes_the_place_of_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, extra) = (dir.path().join("bundle"), dir.path().join("new/extra.crt"));
        fs::write(&bundle, "SYSTEM").unwrap();
        let read = || fs::read_to_string(&bundle).unwrap();
        write(&bundle, &extra, "A\n", None).unwrap();
        assert_eq!(read(), "SYSTEM\nA\n");
        write(&bundle, &extra, "A\n", None).unwrap();
        assert_eq!(read(), "SYSTEM\nA\n");
        write(&bundle, &extra, "B\n", Some("A\n")).unwrap();
        assert_eq!(read(), "SYSTEM\nB\n");
        assert_eq!(fs::read_to_string(&extra).unwrap(), "B\n");
        assert_eq!(
            fs::metadata(&bundle).unwrap().permissions().mode() & 0o777,
            0o644
        );
    }

    #[test]
    fn a_missing_bundle_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none");
        assert!(matches!(
            write(&missing, &missing, "A\n", None),
            Err(CaError::File { .. })
        ));
    }

    #[test]
    fn newlines_at_the_end() {
        assert_eq!(normalised("A\n\n\n").as_deref(), Some("A\n"));
        assert_eq!(normalised("A").as_deref(), Some("A\n"));
        assert_eq!(normalised("\n \n"), None);
    }
}
