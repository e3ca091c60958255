use super::*;

fn long(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap();
    [&len.to_be_bytes(), bytes].concat()
}

fn extension(kind: u16, data: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes(), &*long(data)].concat()
}

/// The `server_name` extension with these entries.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let entries: Vec<u8> = names
        .iter()
        .flat_map(|name| [&[NAME_OF_HOST], &*long(name)].concat())
        .collect();
    extension(EXTENSION_SERVER_NAME, &long(&entries))
}

/// A hello's message with these extensions, as OpenSSL would lay it out.
fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; RANDOM_LEN]);
    body.extend([32].iter().chain(&[9; 32]));
    body.extend(long(&[0x13, 1, 0x13, 2, 0xc0, 0x2f]));
    body.extend([1, 0]);
    body.extend(long(extensions));
    let [_, a, b, c] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[HANDSHAKE_CLIENT_HELLO, a, b, c], &*body].concat()
}

fn record(part: &[u8]) -> Vec<u8> {
    [&[RECORD_HANDSHAKE, 3, 1], &*long(part)].concat()
}

/// A message in records that end at these places, and one with the rest.
fn cut(message: &[u8], ends: &[usize]) -> Vec<u8> {
    let places = [&[0], ends, &[message.len()]].concat();
    let parts = places.windows(2).map(|part| &message[part[0]..part[1]]);
    parts.flat_map(record).collect()
}

fn with(extensions: &[Vec<u8>]) -> Vec<u8> {
    record(&message(&extensions.concat()))
}

fn ordinary(name: &str) -> Vec<u8> {
    with(&[
        extension(0x0a0a, &[]),
        names(&[name.as_bytes()]),
        extension(43, &[2, 3, 4]),
        extension(21, &[0; 300]),
    ])
}

fn found(bytes: &[u8]) -> Result<String, Unfit> {
    server_name(bytes).map(|name| name.to_string())
}

#[test]
fn the_name_is_found_in_whole_and_in_pieces() {
    let whole = ordinary("Www.Example.COM");
    assert_eq!(found(&whole), Ok("www.example.com".into()));
    for len in 0..whole.len() {
        let Err(Unfit::More(needed)) = server_name(&whole[..len]) else {
            panic!("{len} bytes");
        };
        assert!((len + 1..=whole.len()).contains(&needed), "{len}: {needed}");
    }
    // One hello over many records, the first ones shorter than its header.
    let message = &whole[RECORD_HEADER_LEN..];
    for cuts in [&[1][..], &[3, 4], &[1, 2, 3, 4, 50]] {
        assert_eq!(found(&cut(message, cuts)), Ok("www.example.com".into()));
    }
    // Early data follows.
    let early = [&*whole, &[20, 3, 3, 0, 1, 1, 23, 3, 3, 0, 2, 1, 2]].concat();
    assert_eq!(found(&early), Ok("www.example.com".into()));
}

#[test]
fn a_hello_has_few_records() {
    let whole = ordinary("example.com");
    let message = &whole[RECORD_HEADER_LEN..];
    let records = |count: usize| cut(message, &(1..count).collect::<Vec<_>>());
    assert_eq!(found(&records(RECORDS_MAX)), Ok("example.com".into()));
    let one_more = records(RECORDS_MAX + 1);
    assert_eq!(found(&one_more), Err(Unfit::NotAHello));
    // Refused with the last record that may be, before anything of the next.
    let pieces: Vec<u8> = message[..RECORDS_MAX].chunks(1).flat_map(record).collect();
    assert_eq!(found(&pieces), Err(Unfit::NotAHello));
    let fewer = &pieces[..pieces.len() - 1];
    assert_eq!(found(fewer), Err(Unfit::More(pieces.len())));
}

#[test]
fn a_hello_has_few_extensions() {
    let extensions = |count: u16| {
        let more = (1..count).map(|number| extension(0x1000 + number, &[0; 4]));
        let all: Vec<Vec<u8>> = more.chain([names(&[b"example.com"])]).collect();
        with(&all)
    };
    let max = u16::try_from(EXTENSIONS_MAX).unwrap();
    assert_eq!(found(&extensions(max)), Ok("example.com".into()));
    assert_eq!(found(&extensions(max + 1)), Err(Unfit::NotAHello));
}

/// What OpenSSL 3.0 says for `www.example.com`.
const OPENSSL: &str = "1603010200010001fc03038cf7a84f0ca3e94482b8c7fa29870aadf5d455a5e8a997233a52c1a3f1df01e220 \
    7b82125e2abe265addfa1fee4489c01d7f4318d2d656a8762a01a0ca6a0eaee90024130213031301c02cc030 \
    c02bc02fcca9cca8c024c028c023c027009f009e006b006700ff0100018f00000014001200000f7777772e65 \
    78616d706c652e636f6d000b000403000102000a00160014001d0017001e0019001801000101010201030104 \
    002300000016000000170000000d002a0028040305030603080708080809080a080b08040805080604010501 \
    0601030303010302040205020602002b00050403040303002d00020101003300260024001d0020b0069749c2 \
    1fbc39d726df34cd2859af8c73050ac54797ade5a5725275d67d62001500de00000000000000000000000000 \
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
    0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 \
    000000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn a_real_hello_is_read() {
    let digits = OPENSSL.split_whitespace().collect::<String>();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(byte).collect();
    assert_eq!(found(&bytes), Ok("www.example.com".into()));
}

#[test]
fn what_names_no_host_is_refused() {
    let name: &[u8] = b"example.com";
    let no_host = extension(EXTENSION_SERVER_NAME, &long(&[&[1], &*long(name)].concat()));
    let trailing = extension(
        EXTENSION_SERVER_NAME,
        &[&names(&[name])[4..], &[0]].concat(),
    );
    let cases: [(&str, Vec<u8>, Unfit); 12] = [
        ("none", with(&[]), Unfit::Nameless),
        (
            "an empty list",
            with(&[extension(0, &long(&[]))]),
            Unfit::NotAHello,
        ),
        (
            "two names",
            with(&[names(&[name, b"evil.net"])]),
            Unfit::NotAHello,
        ),
        (
            "two lists",
            with(&[names(&[name]), names(&[name])]),
            Unfit::NotAHello,
        ),
        ("another kind", with(&[no_host]), Unfit::NotAHello),
        ("more than the list", with(&[trailing]), Unfit::NotAHello),
        (
            "an address",
            with(&[names(&[b"127.0.0.1"])]),
            Unfit::Nameless,
        ),
        ("nothing", with(&[names(&[b""])]), Unfit::Nameless),
        (
            "a zero",
            with(&[names(&[b"example.com\0.evil.net"])]),
            Unfit::Nameless,
        ),
        (
            "no text",
            with(&[names(&[b"\xff\xfe.com"])]),
            Unfit::Nameless,
        ),
        (
            "hidden",
            with(&[names(&[name]), extension(0xfe0d, &[0; 40])]),
            Unfit::Hidden,
        ),
        (
            "hidden as once",
            with(&[extension(0xffce, &[]), names(&[name])]),
            Unfit::Hidden,
        ),
    ];
    for (what, bytes, unfit) in cases {
        assert_eq!(found(&bytes), Err(unfit), "{what}");
    }
}

#[test]
fn what_is_no_hello_is_refused_at_once() {
    let whole = ordinary("example.com");
    let change = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        bytes
    };
    let too_much = |bytes: Vec<u8>| record(&[&bytes[RECORD_HEADER_LEN..], &[0]].concat());
    let large = with(&[
        names(&[b"example.com"]),
        extension(21, &[0; HELLO_BYTES_MAX]),
    ]);
    let cases = [
        ("http", b"GET / HTTP/1.1\r\n".to_vec()),
        ("one wrong byte", b"G".to_vec()),
        ("SSL 2", vec![0x80, 0x2e, 1, 3, 1]),
        ("another record", change(0, 23)),
        ("another version", change(1, 2)),
        ("another message", change(5, 2)),
        ("an empty record", vec![22, 3, 1, 0, 0]),
        ("shorter than its extensions", change(8, whole[8] - 1)),
        ("bytes behind it", too_much(whole.clone())),
        ("too large", large),
        ("told to be too large", vec![22, 3, 1, 0x40, 1]),
        (
            "a message told to be too large",
            vec![22, 3, 1, 0, 4, 1, 0, 0x40, 1],
        ),
    ];
    for (what, bytes) in cases {
        assert_eq!(found(&bytes), Err(Unfit::NotAHello), "{what}");
    }
}

/// Whatever is found stands in the hello as one entry of a list of names.
#[test]
fn no_bytes_make_it_panic_or_find_what_is_not_there() {
    // A small generator with a fixed seed: the same hellos in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let (mut fit, mut unfit) = (0, 0);
    for round in 0..200_000 {
        let mut bytes = match round % 3 {
            0 => ordinary("example.com"),
            1 => with(&[names(&[b"example.com", b"evil.net"])]),
            _ => {
                let whole = ordinary("example.com");
                whole[RECORD_HEADER_LEN..]
                    .chunks(90)
                    .flat_map(record)
                    .collect()
            }
        };
        for _ in 0..random()[0] % 5 {
            let [a, b, value, cut, ..] = random();
            let at = usize::from(u16::from_be_bytes([a, b])) % bytes.len();
            bytes[at] = value;
            if cut < 20 {
                bytes.truncate(at.max(1));
            }
        }
        match server_name(&bytes) {
            Ok(name) => {
                fit += 1;
                let name = name.as_str().as_bytes();
                let entry = [&[NAME_OF_HOST], &*long(name)].concat();
                let hello = hello(&bytes).unwrap().to_ascii_lowercase();
                let dotted = [&[NAME_OF_HOST], &*long(&[name, b"."].concat())].concat();
                let stands = |entry: &[u8]| hello.windows(entry.len()).any(|w| w == entry);
                assert!(stands(&entry) || stands(&dotted), "{name:?}");
            }
            Err(Unfit::More(needed)) => assert!(needed > bytes.len()),
            Err(_) => unfit += 1,
        }
    }
    assert!(fit > 20_000 && unfit > 20_000, "{fit} {unfit}");
}
