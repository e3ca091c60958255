//! Two processes with one folder, and downloads that end early.

use std::io::Read as _;

use bytes::Bytes;

use super::*;

const CONTENT: &[u8] = b"a layer";

fn key() -> Key {
    Key {
        scope: Scope::public("r.example"),
        digest: Digest::of(CONTENT),
    }
}

fn open(dir: &Path, bytes_max: u64) -> Arc<Cache> {
    Arc::new(Cache::open(dir, bytes_max).unwrap())
}

fn begin(cache: &Arc<Cache>) -> Partial {
    cache.begin(key(), CONTENT.len() as u64).unwrap()
}

fn append(partial: &mut Partial, content: &'static [u8]) {
    partial.append(&[Bytes::from_static(content)]).unwrap();
}

fn content(cache: &Arc<Cache>) -> Option<Vec<u8>> {
    let (mut file, _lease) = cache.find(key()).unwrap()?;
    let mut content = Vec::new();
    file.read_to_end(&mut content).unwrap();
    Some(content)
}

fn partials(dir: &Path) -> usize {
    fs::read_dir(dir.join("partial")).unwrap().count()
}

#[test]
fn scopes_are_apart() {
    let scopes = [
        Scope::public("a"),
        Scope::public("b"),
        Scope::private("a", ""),
        Scope::private("a", "team"),
        Scope::private("at", "eam"),
    ];
    for (at, scope) in scopes.iter().enumerate() {
        assert!(!scopes[..at].contains(scope), "{at}");
    }
}

#[test]
fn two_processes_do_not_write_to_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (open(dir.path(), 100), open(dir.path(), 100));
    let (mut slow, mut fast) = (begin(&first), begin(&second));
    append(&mut slow, b"a l");
    append(&mut fast, CONTENT);
    fast.commit().unwrap();
    assert_eq!(content(&second).as_deref(), Some(CONTENT));
    assert_eq!(
        content(&first).as_deref(),
        Some(CONTENT),
        "found though unknown"
    );
    append(&mut slow, b"ayer");
    slow.commit().unwrap();
    assert_eq!(content(&first).as_deref(), Some(CONTENT));
    assert_eq!(partials(dir.path()), 0);
    assert_eq!(first.lock().bytes, CONTENT.len() as u64);
}

#[test]
fn what_is_left_is_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100);
    let mut partial = begin(&cache);
    append(&mut partial, b"a l");
    drop(partial);
    assert_eq!(cache.lock().bytes, 3);
    let mut partial = begin(&cache);
    assert_eq!(partial.length(), 3);
    append(&mut partial, b"ayer");
    partial.commit().unwrap();
    drop(partial);
    assert_eq!(content(&cache).as_deref(), Some(CONTENT));
    assert_eq!((cache.lock().bytes, partials(dir.path())), (7, 0));
}

#[test]
fn what_is_wrong_or_empty_is_not_left() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100);
    drop(begin(&cache));
    assert_eq!(partials(dir.path()), 0);
    let mut partial = begin(&cache);
    append(&mut partial, b"A layer");
    assert!(matches!(partial.commit(), Err(CommitError::WrongDigest)));
    drop(partial);
    assert_eq!((cache.lock().bytes, partials(dir.path())), (0, 0));
    assert_eq!(content(&cache), None);
}

#[test]
fn a_partial_layer_survives_that_there_is_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 10);
    let mut partial = begin(&cache);
    append(&mut partial, b"a l");
    drop(partial);
    let other = Key {
        digest: Digest::of(b"other"),
        ..key()
    };
    let held = cache.begin(other, 7).unwrap();
    let full = cache.begin(key(), CONTENT.len() as u64).map(|_| ());
    assert!(matches!(full, Err(BeginError::Full)));
    assert_eq!((cache.lock().bytes, partials(dir.path())), (10, 2));
    drop(held);
    assert_eq!(begin(&cache).length(), 3);
}

#[test]
fn a_partial_file_that_is_too_long_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100);
    fs::write(cache.partial_path(&key()), "longer than the layer").unwrap();
    assert_eq!(begin(&cache).length(), 0);
}
