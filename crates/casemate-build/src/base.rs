//! The base template: Debian with a named list of packages, made once and kept.
//!
//! A base is one layer folder (`b-…`, owners as on disk, unshifted) and one manifest. The layer is
//! drafted and renamed, the manifest is written last, so a crash leaves a base or none.

mod bootstrap;
mod import;
mod inspect;
mod manifest;
pub mod packages;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use casemate_types::{Resources, TemplateId, Timestamp};
use uuid::Uuid;

use crate::archive::{self, ArchiveError, Compression};
use crate::draft::{self, Draft};
use crate::host::HostError;
use crate::progress::Progress;

pub use manifest::{
    BaseManifest, BaseSource, BaseUser, MANIFEST_VERSION, ManifestError, PackageList,
};

/// The name under which everybody finds the base.
pub const ALIAS: &str = "base";
/// What layers of bases start with.
pub const LAYER_PREFIX: &str = "b-";
/// Free bytes that making or importing a base asks for before it starts (1.5 GiB): the packages,
/// unpacked and as files.
pub const FREE_BYTES_MIN: u64 = 3 << 29;

/// Where things are.
#[derive(Debug, Clone)]
pub struct BaseConfig {
    /// Holds layer folders; on the pool's file system.
    pub layers_dir: PathBuf,
    /// Holds the manifest.
    pub templates_dir: PathBuf,
    /// Gets `base-build.log` when making a base fails.
    pub logs_dir: PathBuf,
    /// `--base FILE`.
    pub import: Option<PathBuf>,
    /// Whose apt settings are used: `/`, or a look-alike in tests.
    pub host_root: PathBuf,
}

/// Why there is no base.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    #[error("{verb} {}", path.display())]
    Io {
        verb: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the program {program} is missing: install it with `apt-get install {package}`, or give \
         a ready base with --base FILE"
    )]
    MissingProgram {
        program: &'static str,
        package: &'static str,
    },
    #[error("start {program}")]
    Start {
        program: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("making the base failed ({last}); the whole log is in {}", log.display())]
    Bootstrap { last: String, log: PathBuf },
    #[error("{} has {free_mib} MiB free, a base needs {needed_mib} MiB", path.display())]
    NoSpace {
        path: PathBuf,
        free_mib: u64,
        needed_mib: u64,
    },
    #[error("{} is no base that this version can use", path.display())]
    Manifest {
        path: PathBuf,
        #[source]
        reason: ManifestError,
    },
    #[error("cannot use the archive {}", path.display())]
    Archive {
        path: PathBuf,
        #[source]
        source: ArchiveError,
    },
    #[error("{} must end in .tar, .tar.gz or .tar.zst: that says what is written", path.display())]
    Ending { path: PathBuf },
    #[error("the root file system {missing}: a base needs it")]
    Unfit { missing: String },
    #[error(transparent)]
    Host(#[from] HostError),
    #[error("there is no base yet: start the platform once, or give one with --base FILE")]
    Absent,
}

impl BaseError {
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}

/// The base, made or imported if there is none. With an archive that is not the kept base, the
/// archive wins: it becomes the base for new sandboxes, and the old layer stays for those that run
/// on it until [`sweep`].
///
/// Blocks: minutes when a base is made, seconds on import, a file read otherwise. One call at a
/// time per data directory.
pub fn ensure(config: &BaseConfig, progress: &dyn Progress) -> Result<BaseManifest, BaseError> {
    draft::sweep_drafts(&config.layers_dir, LAYER_PREFIX)
        .map_err(BaseError::io("clean up", &config.layers_dir))?;
    let kept = BaseManifest::load(&config.templates_dir, &config.layers_dir)?;
    match (&config.import, kept) {
        (None, Some(kept)) => Ok(kept),
        (None, None) => make(config, progress),
        (Some(archive), kept) => import::ensure(config, archive, kept, progress),
    }
}

/// Writes the kept base as an archive that [`ensure`] imports; compressed by the file's ending.
pub fn export(config: &BaseConfig, file: &Path) -> Result<BaseManifest, BaseError> {
    let kept = BaseManifest::load(&config.templates_dir, &config.layers_dir)?;
    let kept = kept.ok_or(BaseError::Absent)?;
    let [layer] = kept.layers.as_slice() else {
        return Err(BaseError::Unfit {
            missing: "has more than one layer".into(),
        });
    };
    let compression = Compression::by_name(&file.to_string_lossy())
        .ok_or_else(|| BaseError::Ending { path: file.into() })?;
    let mut partial = file.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let out = File::create(&partial).map_err(BaseError::io("create", &partial))?;
    let root = config.layers_dir.join(layer);
    let packed = archive::pack(&root, &kept.to_json(), out, compression);
    if let Err(source) = packed {
        let _ = fs::remove_file(&partial);
        let path = file.into();
        return Err(BaseError::Archive { path, source });
    }
    fs::rename(&partial, file).map_err(BaseError::io("rename", &partial))?;
    Ok(kept)
}

/// Makes a base for other machines or other data directories: the archive `file`, with nothing
/// else kept. `work_dir` holds it meanwhile.
pub fn make_archive(
    file: &Path,
    work_dir: &Path,
    progress: &dyn Progress,
) -> Result<BaseManifest, BaseError> {
    let dir = work_dir.join(format!("casemate-base-{}", Uuid::new_v4().simple()));
    let config = BaseConfig {
        layers_dir: dir.join("layers"),
        templates_dir: dir.join("templates"),
        logs_dir: work_dir.to_owned(),
        import: None,
        host_root: "/".into(),
    };
    let made = ensure(&config, progress).and_then(|_| {
        progress.step(100, "writing the archive");
        export(&config, file)
    });
    let removed = match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(BaseError::io("remove", &dir)),
    };
    let made = made?;
    removed.map(|()| made)
}

/// Removes layers of bases that neither `in_use` nor the kept manifest names, and half-made ones.
pub fn sweep(config: &BaseConfig, in_use: &BTreeSet<String>) -> Result<Vec<String>, BaseError> {
    let mut in_use = in_use.clone();
    let kept = BaseManifest::load(&config.templates_dir, &config.layers_dir)?;
    in_use.extend(kept.into_iter().flat_map(|kept| kept.layers));
    draft::sweep(&config.layers_dir, LAYER_PREFIX, &in_use)
        .map_err(BaseError::io("clean up", &config.layers_dir))
}

fn make(config: &BaseConfig, progress: &dyn Progress) -> Result<BaseManifest, BaseError> {
    let build_id = Uuid::new_v4();
    let draft = open_draft(config, build_id)?;
    bootstrap::run(config, draft.path(), progress)?;
    keep(
        config,
        draft,
        BaseSource::Bootstrap,
        None,
        build_id,
        progress,
    )
}

fn open_draft(config: &BaseConfig, build_id: Uuid) -> Result<Draft, BaseError> {
    let dir = &config.layers_dir;
    fs::create_dir_all(dir).map_err(BaseError::io("create", dir))?;
    let room =
        rustix::fs::statvfs(dir).map_err(|errno| BaseError::io("look at", dir)(errno.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    if free < FREE_BYTES_MIN {
        return Err(BaseError::NoSpace {
            path: dir.clone(),
            free_mib: free >> 20,
            needed_mib: FREE_BYTES_MIN >> 20,
        });
    }
    Draft::open(dir, &layer_name(build_id)).map_err(BaseError::io("create a layer in", dir))
}

/// Ends a base: looks at what was made, keeps the layer, writes the manifest.
fn keep(
    config: &BaseConfig,
    draft: Draft,
    source: BaseSource,
    identity: Option<(TemplateId, Timestamp)>,
    build_id: Uuid,
    progress: &dyn Progress,
) -> Result<BaseManifest, BaseError> {
    progress.step(96, "checking and storing the base");
    let found = inspect::inspect(draft.path())?;
    draft
        .keep()
        .map_err(BaseError::io("store a layer in", &config.layers_dir))?;
    let (template_id, created_at) =
        identity.unwrap_or_else(|| (TemplateId::random(), Timestamp::now()));
    let manifest = BaseManifest {
        version: MANIFEST_VERSION,
        template_id,
        build_id,
        alias: ALIAS.into(),
        layers: vec![layer_name(build_id)],
        resources: Resources::BASE,
        workdir: found.user.home.clone(),
        user: found.user,
        env: BTreeMap::from([("LANG".into(), "C.UTF-8".into())]),
        created_at,
        size_bytes: found.size_bytes,
        packages: found.packages,
        source,
    };
    manifest.save(&config.templates_dir)?;
    progress.step(100, "the base is ready");
    Ok(manifest)
}

/// Short: overlay options hold few bytes (`namespaces-runtime.md` 1).
fn layer_name(build_id: Uuid) -> String {
    format!("{LAYER_PREFIX}{}", &build_id.simple().to_string()[..12])
}
