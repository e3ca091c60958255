use super::write::{Item, Writer, checksum, header};
use super::*;

type Listed = (Entry, Vec<u8>);

fn list(bytes: &[u8]) -> Result<Vec<Listed>, TarError> {
    let mut archive = Archive::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = archive.next_entry()? {
        let mut content = Vec::new();
        let read = archive.content().read_to_end(&mut content);
        read.map_err(TarError::of_read)?;
        all.push((entry, content));
    }
    archive.finish()?;
    Ok(all)
}

/// What the first entry is refused with.
#[track_caller]
fn refused(bytes: &[u8]) -> String {
    list(bytes).unwrap_err().to_string()
}

#[test]
fn entries_of_all_kinds() {
    let items = [
        Item::folder("d/"),
        Item {
            owner: (1000, 65_535),
            mode: 0o104_755,
            ..Item::file("d/f", "content")
        },
        Item::symlink("d/l", "/x y"),
        Item::hard_link("d/h", "d/f"),
        Item::of(b'3', "dev"),
        Item::of(b'6', "fifo"),
        Item::of(0, "old/"),
    ];
    let all = list(&Writer::of(&items)).unwrap();
    let kinds: Vec<_> = all.iter().map(|(entry, _)| entry.kind.clone()).collect();
    assert_eq!(
        kinds,
        [
            Kind::Directory,
            Kind::File,
            Kind::Symlink(b"/x y".into()),
            Kind::HardLink(b"d/f".into()),
            Kind::Device,
            Kind::Fifo,
            Kind::Directory,
        ]
    );
    let (file, content) = &all[1];
    assert_eq!(
        (file.path.as_slice(), content.as_slice()),
        (&b"d/f"[..], &b"content"[..])
    );
    assert_eq!((file.mode, file.uid, file.gid), (0o4755, 1000, 65_535));
    let seconds = 1_000_000_000;
    assert_eq!(file.modified, Time { seconds, nanos: 0 });
}

#[test]
fn extended_headers_win_over_what_they_extend() {
    let long = format!("{}/name", "d".repeat(300));
    let mut writer = Writer::default();
    writer.item(&Item {
        content: b"1234567890",
        ..Item::of(b'L', "././@LongLink")
    });
    writer.item(&Item::file("cut", ""));
    writer.pax(&[
        ("path", long.as_bytes()),
        ("uid", b"7"),
        ("size", b"3"),
        ("mtime", b"12.5"),
        ("SCHILY.xattr.user.a", b"\0\n="),
    ]);
    // Its own size is wrong; the record is right.
    let mut block = header(&Item::file("short", ""));
    checksum(&mut block);
    writer.0.extend_from_slice(&block);
    writer.content(b"abc");
    writer.item(&Item::file("plain", ""));
    let all = list(&writer.end()).unwrap();
    assert_eq!(all[0].0.path, b"1234567890");
    let (entry, content) = &all[1];
    assert_eq!(
        (entry.path.as_slice(), content.as_slice()),
        (long.as_bytes(), &b"abc"[..])
    );
    assert_eq!(entry.uid, 7);
    assert_eq!(
        entry.modified,
        Time {
            seconds: 12,
            nanos: 500_000_000
        }
    );
    assert_eq!(entry.attributes, [(b"user.a".to_vec(), b"\0\n=".to_vec())]);
    assert_eq!((all[2].0.path.as_slice(), all[2].0.uid), (&b"plain"[..], 0));
}

#[test]
fn broken_archives() {
    let good = Writer::of(&[Item::file("f", "content")]);
    // Without its end an archive is whole, in the middle of anything it is not.
    assert_eq!(list(&good[..1024]).unwrap().len(), 1);
    assert_eq!(list(b"").unwrap().len(), 0);
    for end in [100, 512 + 3, 512 + 7] {
        assert_eq!(
            refused(&good[..end]),
            "the archive ends within an entry",
            "{end}"
        );
    }
    let mut flipped = good.clone();
    flipped[3] ^= 1;
    assert!(refused(&flipped).contains("wrong checksum"));
    assert!(refused(&[b'x'; 512]).contains("wrong checksum"));
    assert_eq!(
        refused(&Writer::of(&[Item::of(b'Q', "f")])),
        "entry of unknown kind 'Q'"
    );
    assert!(refused(&Writer::of(&[Item::file("", "")])).contains("name"));
}

#[test]
fn numbers_that_cannot_be_are_refused() {
    for (at, field) in [(100, "mode"), (108, "owner"), (116, "group"), (124, "size")] {
        let mut block = header(&Item::file("f", ""));
        block[at..at + 8].copy_from_slice(b"\xff\xff\xff\xff\xff\xff\xff\xfe");
        checksum(&mut block);
        assert!(refused(&block).contains(field), "{field}");
    }
}

#[test]
fn extended_headers_have_bounds() {
    let mut block = header(&Item::of(b'x', "pax"));
    block[124..135].copy_from_slice(b"77777777777");
    checksum(&mut block);
    assert!(refused(&block).starts_with("extended header of more than"));
    let mut block = header(&Item::file("f", ""));
    block[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    checksum(&mut block);
    assert_eq!(refused(&block), "the archive ends within an entry");
    let mut writer = Writer::default();
    writer.pax(&[("size", b"18446744073709551615")]);
    writer.item(&Item::file("f", ""));
    assert!(refused(&writer.end()).contains("size"));
    // Many headers for one entry, and many attributes in one.
    let mut writer = Writer::default();
    let value = vec![b'v'; 900_000];
    writer.pax(&[("SCHILY.xattr.user.a", &value)]);
    writer.pax(&[("SCHILY.xattr.user.b", &value)]);
    writer.item(&Item::file("f", ""));
    assert!(refused(&writer.end()).starts_with("extended header of more than"));
    let names: Vec<String> = (0..300).map(|n| format!("SCHILY.xattr.user.{n}")).collect();
    let records: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), &b"x"[..]))
        .collect();
    let mut writer = Writer::default();
    writer.pax(&records);
    writer.item(&Item::file("f", ""));
    assert!(refused(&writer.end()).starts_with("extended header of more than"));
    let long = vec![b'n'; 5000];
    for kind in [b'L', b'K'] {
        let mut writer = Writer::default();
        writer.item(&Item {
            content: &long,
            ..Item::of(kind, "long")
        });
        writer.item(&Item::symlink("l", "t"));
        assert!(refused(&writer.end()).starts_with("name of more than"));
    }
    let mut writer = Writer::default();
    writer.pax(&[("path", b"a\0b")]);
    writer.item(&Item::file("f", ""));
    assert!(refused(&writer.end()).contains("no valid name"));
}

#[test]
fn maps_of_sparse_files_are_checked() {
    let map = |map: &str, length: &str, content: &[u8]| {
        let mut writer = Writer::default();
        writer.pax(&[
            ("GNU.sparse.map", map.as_bytes()),
            ("GNU.sparse.size", length.as_bytes()),
            ("GNU.sparse.name", b"real"),
        ]);
        writer.item(&Item {
            content,
            ..Item::file("f", "")
        });
        list(&writer.end())
    };
    let all = map("1,2,10,1", "20", b"abc").unwrap();
    assert_eq!(all[0].0.path, b"real");
    let sparse = all[0].0.sparse.as_ref().unwrap();
    assert_eq!(
        (sparse.length, sparse.pieces.as_slice()),
        (20, &[(1, 2), (10, 1)][..])
    );
    for (wrong, length) in [
        ("1,2,10", "20"),
        ("1,2,2,1", "20"),
        ("1,2,18446744073709551615,1", "20"),
        ("1,2,10,1", "10"),
        ("1,2", "20"),
        ("1,2,x,1", "20"),
        ("1,2,10,1", "9999999999999999999"),
    ] {
        let error = map(wrong, length, b"abc").unwrap_err();
        assert!(matches!(error, TarError::Sparse), "{wrong}: {error}");
    }
    // Version 1: more pairs than there can be, and a map that never ends.
    for front in [
        "999999999\n".to_owned(),
        "1".repeat(400),
        "2\n1\n".to_owned(),
    ] {
        let mut writer = Writer::default();
        writer.pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.realsize", b"20")]);
        writer.item(&Item::file("f", &front));
        assert!(
            matches!(list(&writer.end()), Err(TarError::Sparse)),
            "{front}"
        );
    }
}
