//! Which files a `COPY` takes.

use std::collections::{BTreeSet, VecDeque};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use crate::context::Context;
use crate::error::ContextError;
use crate::glob::{self, Piece, class};
use crate::ignore::Matched;

/// The most files of one `COPY`, folders and links counted. Beyond it somebody named `/`.
const FILES_MAX: usize = 1_000_000;

/// The files of one `COPY`.
#[derive(Debug)]
pub struct Selection<'a> {
    pub(crate) context: &'a Context,
    pub(crate) source: String,
    pub(crate) destination: String,
    /// Below the context, in the order of their bytes; the context itself is empty.
    pub(crate) paths: Vec<String>,
}

pub(crate) fn select<'a>(
    context: &'a Context,
    source: &str,
    destination: &str,
) -> Result<Selection<'a>, ContextError> {
    check(source)?;
    let mut named: Vec<String> = named(context, source)?.into_iter().collect();
    // Folders before what is in them, so that nothing is walked twice.
    named.sort_by_key(|path| depth(path));
    let mut walk = Walk {
        context,
        taken: BTreeSet::new(),
        walked: BTreeSet::new(),
    };
    for path in named {
        walk.take(path)?;
    }
    if walk.taken.is_empty() {
        return Err(ContextError::Nothing {
            path: context.root.join(source),
        });
    }
    Ok(Selection {
        context,
        source: source.to_owned(),
        destination: destination.to_owned(),
        paths: walk.taken.into_iter().collect(),
    })
}

/// A source that leaves the context on paper, whatever lies there.
fn check(source: &str) -> Result<(), ContextError> {
    let source_path = || source.to_owned();
    if source.starts_with('/') {
        return Err(ContextError::Absolute {
            source_path: source_path(),
        });
    }
    let mut depth = 0_usize;
    for name in source.split('/') {
        match name {
            "" | "." => {}
            ".." => {
                depth = depth.checked_sub(1).ok_or_else(|| ContextError::Escapes {
                    source_path: source_path(),
                })?;
            }
            _ => depth += 1,
        }
    }
    Ok(())
}

fn depth(path: &str) -> usize {
    match path.is_empty() {
        true => 0,
        false => path.matches('/').count() + 1,
    }
}

/// One name of a source.
enum Part {
    Name(String),
    Pattern(Vec<Piece>),
    /// `**`
    Deep,
    Up,
    /// A slash at the end, or `.`: a folder.
    Folder,
}

/// What the source names, before it is known what is left out.
fn named(context: &Context, source: &str) -> Result<BTreeSet<String>, ContextError> {
    let mut found = BTreeSet::new();
    if source.is_empty() {
        return Ok(found);
    }
    let mut parts = Vec::new();
    for name in source.split('/') {
        let part = part(name).map_err(|reason| ContextError::Pattern {
            pattern: source.to_owned(),
            reason,
        })?;
        if !(matches!(part, Part::Deep) && matches!(parts.last(), Some(Part::Deep))) {
            parts.push(part);
        }
    }
    if let Some(name) = only_name(source, &parts)
        && context.is_no_folder(name)?
    {
        return Ok(BTreeSet::from([name.to_owned()]));
    }
    found.insert(String::new());
    let mut left = false;
    for (index, part) in parts.iter().enumerate() {
        let is_last = parts[index + 1..]
            .iter()
            .all(|part| matches!(part, Part::Folder));
        let mut next = BTreeSet::new();
        for path in &found {
            match part {
                Part::Folder => {
                    // A link to a folder counts here, and stays a link, wherever it leads.
                    let full = context.root.join(path);
                    if fs::metadata(full).is_ok_and(|metadata| metadata.is_dir()) {
                        next.insert(path.clone());
                    }
                    continue;
                }
                _ if !context.is_folder(path, &mut left)? => continue,
                Part::Up => {
                    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                    next.insert(parent.to_owned());
                }
                Part::Name(name) => {
                    let path = join(path, name);
                    if context.kind(&path)?.is_some() {
                        next.insert(path);
                    }
                }
                Part::Pattern(pieces) => {
                    let matches = |name: &str, _| glob::matches(pieces, name);
                    let names = context.names(path, &matches)?;
                    next.extend(names.iter().map(|name| join(path, name)));
                }
                Part::Deep => {
                    // At the end it is all that there is; the folder that it begins in only when
                    // that was named.
                    if index > 0 || !is_last {
                        next.insert(path.clone());
                    }
                    below(context, path, !is_last, &mut next)?;
                }
            }
            bound(next.len())?;
        }
        found = next;
    }
    match found.is_empty() && left {
        true => Err(ContextError::Escapes {
            source_path: source.to_owned(),
        }),
        false => Ok(found),
    }
}

/// One name with nothing but `.` and `**` behind it. The SDK takes that for the name itself also where
/// no folder has it.
fn only_name<'p>(source: &str, parts: &'p [Part]) -> Option<&'p str> {
    let is_nothing = |part: &Part| matches!(part, Part::Folder | Part::Deep);
    match parts {
        [Part::Name(name), behind @ ..] if !source.ends_with('/') => {
            behind.iter().all(is_nothing).then_some(name)
        }
        _ => None,
    }
}

fn part(name: &str) -> Result<Part, &'static str> {
    let mut pieces = Vec::new();
    let mut letters = name.chars();
    match name {
        "" | "." => return Ok(Part::Folder),
        ".." => return Ok(Part::Up),
        "**" => return Ok(Part::Deep),
        _ => {}
    }
    while let Some(letter) = letters.next() {
        pieces.push(match letter {
            '*' => Piece::Many,
            '?' => Piece::Any,
            '[' => {
                if letters.as_str().contains("[:") {
                    return Err("classes by name are not supported");
                }
                class(&mut letters, &['!', '^']).unwrap_or(Piece::Letter('['))
            }
            '\\' => Piece::Letter(letters.next().unwrap_or('\\')),
            _ => Piece::Letter(letter),
        });
    }
    let letter = |piece: &Piece| match piece {
        Piece::Letter(letter) => Some(*letter),
        _ => None,
    };
    Ok(match pieces.iter().map(letter).collect() {
        Some(name) => Part::Name(name),
        None => Part::Pattern(pieces),
    })
}

/// Everything below a folder, or only its folders; links are not followed.
fn below(
    context: &Context,
    folder: &str,
    folders_only: bool,
    found: &mut BTreeSet<String>,
) -> Result<(), ContextError> {
    let mut waiting = VecDeque::from([folder.to_owned()]);
    while let Some(folder) = waiting.pop_front() {
        for name in context.names(&folder, &|_, is_folder| is_folder || !folders_only)? {
            let path = join(&folder, &name);
            let is_folder = context.kind(&path)?.is_some_and(|kind| kind.is_dir());
            if is_folder {
                waiting.push_back(path.clone());
            }
            if is_folder || !folders_only {
                found.insert(path);
            }
            bound(found.len() + waiting.len())?;
        }
    }
    Ok(())
}

fn bound(files: usize) -> Result<(), ContextError> {
    match files <= FILES_MAX {
        true => Ok(()),
        false => Err(ContextError::TooMany {
            files_max: FILES_MAX,
        }),
    }
}

fn join(folder: &str, name: &str) -> String {
    match folder.is_empty() {
        true => name.to_owned(),
        false => format!("{folder}/{name}"),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    let is_loop = error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error());
    is_loop || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

impl Context {
    /// Whether there is a folder. A link to one is followed, for the source names what is behind it,
    /// but not out of the context: then it is none, and `left` says so.
    fn is_folder(&self, path: &str, left: &mut bool) -> Result<bool, ContextError> {
        let full = self.root.join(path);
        match fs::canonicalize(&full) {
            Ok(real) if real.starts_with(&self.root) => Ok(real.is_dir()),
            Ok(_) => {
                *left = true;
                Ok(false)
            }
            Err(error) if is_absent(&error) => Ok(false),
            Err(source) => Err(ContextError::Read { path: full, source }),
        }
    }

    /// Whether something is there that is neither a folder nor a link to one.
    fn is_no_folder(&self, path: &str) -> Result<bool, ContextError> {
        let leads = fs::metadata(self.root.join(path));
        Ok(self.kind(path)?.is_some() && !leads.is_ok_and(|found| found.is_dir()))
    }

    /// What lies there, a link as itself; `None`: nothing.
    fn kind(&self, path: &str) -> Result<Option<fs::FileType>, ContextError> {
        let full = self.root.join(path);
        match fs::symlink_metadata(&full) {
            Ok(metadata) => Ok(Some(metadata.file_type())),
            Err(error) if is_absent(&error) => Ok(None),
            Err(source) => Err(ContextError::Read { path: full, source }),
        }
    }

    /// Whether a path is left out, with all that may be below it.
    fn leaves_out_all(&self, path: &str, is_folder: bool) -> bool {
        let takes_in = is_folder && self.ignore.may_take_in_below(path);
        self.ignore.leaves_out_path(path).0 && !takes_in
    }

    /// Names in a folder of those that are `wanted`, which is told whether it is one of a folder. One
    /// that is no text cannot be copied, which is an error only where it would be.
    fn names(
        &self,
        folder: &str,
        wanted: &dyn Fn(&str, bool) -> bool,
    ) -> Result<Vec<String>, ContextError> {
        let full: PathBuf = self.root.join(folder);
        let read = |source| ContextError::Read {
            path: full.clone(),
            source,
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&full).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            let shown = name.to_string_lossy();
            let is_folder = entry.file_type().map_err(read)?.is_dir();
            if !wanted(&shown, is_folder) {
                continue;
            }
            match name.to_str() {
                Some(name) => names.push(name.to_owned()),
                None if self.leaves_out_all(&join(folder, &shown), is_folder) => {}
                None => return Err(ContextError::NotText { path: entry.path() }),
            }
            bound(names.len())?;
        }
        Ok(names)
    }
}

struct Walk<'a> {
    context: &'a Context,
    taken: BTreeSet<String>,
    walked: BTreeSet<String>,
}

impl Walk<'_> {
    fn take(&mut self, path: String) -> Result<(), ContextError> {
        let mut above = path.match_indices('/').map(|(end, _)| &path[..end]);
        let was_walked = self.walked.contains("") || above.any(|path| self.walked.contains(path));
        if was_walked {
            return Ok(());
        }
        // The context itself is never left out.
        let (left_out, matched) = match path.is_empty() {
            true => (false, Matched::default()),
            false => self.context.ignore.leaves_out_path(&path),
        };
        if left_out {
            return Ok(());
        }
        let is_folder = match path.is_empty() {
            true => true,
            false => self.context.kind(&path)?.is_some_and(|kind| kind.is_dir()),
        };
        if is_folder {
            self.below(&path, matched)?;
            self.walked.insert(path.clone());
        }
        self.taken.insert(path);
        bound(self.taken.len())
    }

    fn below(&mut self, folder: &str, matched: Matched) -> Result<(), ContextError> {
        let mut waiting = vec![(folder.to_owned(), matched)];
        while let Some((folder, matched)) = waiting.pop() {
            for name in self.context.names(&folder, &|_, _| true)? {
                let path = join(&folder, &name);
                let (left_out, matched) = self.context.ignore.leaves_out(&matched, &path);
                let is_folder = self.context.kind(&path)?.is_some_and(|kind| kind.is_dir());
                if is_folder && (!left_out || self.context.ignore.may_take_in_below(&path)) {
                    waiting.push((path.clone(), matched));
                }
                if !left_out {
                    self.taken.insert(path);
                }
                bound(self.taken.len() + waiting.len())?;
            }
        }
        Ok(())
    }
}
