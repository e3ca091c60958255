use super::*;

fn open(folder: &Path, bytes_max: u64) -> Cache {
    Cache::open(&CacheConfig {
        folder: folder.to_owned(),
        bytes_max,
    })
    .unwrap()
}

fn piece(seed: u8, len: usize) -> (Digest, Bytes) {
    let bytes = vec![seed; len];
    (Digest::of(&bytes), bytes.into())
}

/// Bytes of all files below.
fn on_disk(folder: &Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).unwrap().flatten() {
        bytes += match entry.file_type().unwrap().is_dir() {
            true => on_disk(&entry.path()),
            false => entry.metadata().unwrap().len(),
        };
    }
    bytes
}

#[test]
fn what_was_used_least_lately_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 30);
    let pieces: Vec<_> = (0..4).map(|seed| piece(seed, 10)).collect();
    for (digest, bytes) in &pieces[..3] {
        cache.insert(digest, bytes);
    }
    assert_eq!(cache.find(&pieces[0].0, 10).unwrap(), pieces[0].1);
    cache.insert(&pieces[3].0, &pieces[3].1);
    let here: Vec<_> = pieces
        .iter()
        .map(|(digest, _)| cache.find(digest, 10).is_some())
        .collect();
    assert_eq!(here, [true, false, true, true]);
    assert_eq!((cache.size(), on_disk(dir.path())), ((30, 3), 30));
}

#[test]
fn a_restart_keeps_what_fits_by_last_use() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 30);
    let pieces: Vec<_> = (0..3).map(|seed| piece(seed, 10)).collect();
    for ((digest, bytes), age) in pieces.iter().zip([10, 30, 20]) {
        cache.insert(digest, bytes);
        let file = File::open(cache.path(digest)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age))
            .unwrap();
    }
    // As if killed while writing, and what nobody put there.
    fs::write(dir.path().join("partial/7"), "torn").unwrap();
    fs::write(cache.path(&pieces[0].0).with_extension("x"), "strange").unwrap();
    drop(cache);
    let cache = open(dir.path(), 20);
    let here: Vec<_> = pieces
        .iter()
        .map(|(digest, _)| cache.find(digest, 10).is_some())
        .collect();
    assert_eq!(here, [true, false, true]);
    assert_eq!((cache.size(), on_disk(dir.path())), ((20, 2), 20));
}

#[test]
fn a_folder_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 30);
    let config = CacheConfig {
        folder: dir.path().to_owned(),
        bytes_max: 30,
    };
    assert!(matches!(
        Cache::open(&config),
        Err(CacheError::Taken { .. })
    ));
    drop(cache);
    open(dir.path(), 30);
}

#[test]
fn a_file_that_is_gone_or_too_long_is_no_piece() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 30);
    let ((gone, bytes), (long, longer)) = (piece(1, 5), piece(2, 6));
    cache.insert(&gone, &bytes);
    cache.insert(&long, &longer);
    fs::remove_file(cache.path(&gone)).unwrap();
    assert_eq!(cache.find(&gone, 5), None);
    assert_eq!(cache.find(&long, 5), None);
    assert_eq!((cache.size(), on_disk(dir.path())), ((0, 0), 0));
}

#[test]
fn the_bound_holds_while_many_write_and_read() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 100);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (cache, dir) = (&cache, dir.path());
            scope.spawn(move || {
                for round in 0..60u8 {
                    let (digest, bytes) = piece(round.wrapping_mul(thread + 1) % 40, 9);
                    cache.insert(&digest, &bytes);
                    if let Some(found) = cache.find(&digest, 9) {
                        assert!(found.is_empty() || found == bytes);
                    }
                    assert!(cache.size().0 <= 100);
                    let _ = dir;
                }
            });
        }
    });
    assert!(on_disk(dir.path()) <= 100);
    assert_eq!(cache.size().0, on_disk(dir.path()));
}

#[test]
fn a_folder_that_cannot_be_written_costs_the_cache_only() {
    let dir = tempfile::tempdir().unwrap();
    let cache = open(dir.path(), 30);
    fs::remove_dir_all(dir.path().join("partial")).unwrap();
    let (digest, bytes) = piece(1, 5);
    cache.insert(&digest, &bytes);
    assert_eq!((cache.find(&digest, 5), cache.size()), (None, (0, 0)));
}
