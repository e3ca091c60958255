use super::*;

/// `example.org` of the given type, recursion desired, with an EDNS record.
fn question(kind: u16) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(b"\x07example\x03org\x00");
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    bytes
}

fn reply(id: u16) -> Vec<u8> {
    let mut bytes = question(1);
    bytes[..2].copy_from_slice(&id.to_be_bytes());
    bytes[2] |= FLAG_RESPONSE;
    bytes
}

#[track_caller]
fn check_answer(bytes: &[u8], code: Code) {
    match Query::parse(bytes) {
        Err(Unfit::Answer(answer)) => {
            assert_eq!(answer[..2], bytes[..2]);
            assert_eq!(answer[2] & FLAG_RESPONSE, FLAG_RESPONSE);
            assert_eq!(answer[3] & 0x0f, code as u8);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_passes_with_its_edns() {
    let query = Query::parse(&question(TYPE_AAAA)).unwrap();
    assert_eq!(query.kind(), TYPE_AAAA);
    let sent = query.numbered(0x1234);
    assert_eq!(sent[..2], [0x12, 0x34]);
    assert_eq!(sent[2..], question(TYPE_AAAA)[2..]);
    let refused = query.answered(Code::Refused);
    assert_eq!(refused[..4], [0xab, 0xcd, 0x81, 0x85]);
    assert_eq!(refused[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(refused[12..], question(TYPE_AAAA)[12..29]);
    assert_eq!(query.answered_truncated()[2], 0x83);
}

#[test]
fn unfit_packets_are_answered_or_met_with_silence() {
    let change = |at: usize, value: u8| {
        let mut bytes = question(1);
        bytes[at] = value;
        bytes
    };
    assert_eq!(Query::parse(&[]), Err(Unfit::Silence));
    assert_eq!(Query::parse(&question(1)[..11]), Err(Unfit::Silence));
    assert_eq!(Query::parse(&change(2, 0x81)), Err(Unfit::Silence));
    check_answer(&change(2, 0x28), Code::NotImplemented);
    check_answer(&change(5, 0), Code::FormatError);
    check_answer(&change(5, 2), Code::FormatError);
    check_answer(&change(7, 1), Code::FormatError);
    // A pointer, a label too long, a name without an end.
    check_answer(&change(12, 0xc0), Code::FormatError);
    check_answer(&change(12, 64), Code::FormatError);
    check_answer(&question(1)[..24], Code::FormatError);
    check_answer(&question(TYPE_AXFR), Code::Refused);
    check_answer(&change(28, 3), Code::Refused);
}

#[test]
fn a_name_has_at_most_255_bytes() {
    let named = |labels: usize, last: u8| {
        let mut bytes = question(1)[..12].to_vec();
        for _ in 0..labels {
            bytes.push(63);
            bytes.extend_from_slice(&[b'a'; 63]);
        }
        bytes.push(last);
        bytes.extend(std::iter::repeat_n(b'a', usize::from(last)));
        bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
        bytes
    };
    assert!(Query::parse(&named(3, 61)).is_ok());
    check_answer(&named(3, 62), Code::FormatError);
}

#[test]
fn only_the_answer_to_the_question_is_adopted() {
    let query = Query::parse(&question(1)).unwrap();
    let adopted = query.adopt(7, reply(7)).unwrap();
    assert_eq!(adopted[..2], [0xab, 0xcd]);
    let mut upper = reply(7);
    upper[13] = b'E';
    assert!(query.adopt(7, upper).is_some());
    assert_eq!(query.adopt(8, reply(7)), None);
    let change = |at: usize, value: u8| {
        let mut bytes = reply(7);
        bytes[at] = value;
        bytes
    };
    assert_eq!(query.adopt(7, change(2, 1)), None, "a question");
    assert_eq!(query.adopt(7, change(13, b'f')), None, "another name");
    assert_eq!(query.adopt(7, change(26, 28)), None, "another type");
    assert_eq!(query.adopt(7, change(5, 0)), None, "no question");
    assert_eq!(query.adopt(7, reply(7)[..20].to_vec()), None, "cut");
    let mut header = reply(7)[..12].to_vec();
    header[3] = 1;
    header[5] = 0;
    assert_eq!(
        query.adopt(7, header),
        Some(query.answered(Code::ServerFailure))
    );
}

#[test]
fn no_bytes_make_it_panic() {
    // A small generator with a fixed seed: the same packets in every run.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let query = Query::parse(&question(1)).unwrap();
    for round in 0..200_000 {
        let mut bytes = if round % 2 == 0 {
            question(1)
        } else {
            reply(7)
        };
        for _ in 0..=random()[0] % 6 {
            let [at, value, cut, ..] = random();
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
            if cut < 40 {
                bytes.truncate(at.max(1));
            }
        }
        if let Ok(query) = Query::parse(&bytes) {
            assert_eq!(query.numbered(1).len(), bytes.len());
            let _ = query.answered(Code::NoError);
            let _ = query.name();
        }
        let _ = addresses(&bytes);
        let _ = query.adopt(7, bytes);
    }
}

#[test]
fn a_name_is_read_as_a_host_or_not_at_all() {
    let named = |wire: &[u8]| {
        let bytes = [&question(1)[..12], wire, &[0, 1, 0, 1]].concat();
        let query = Query::parse(&bytes).unwrap();
        query.name().map(|name| name.to_string())
    };
    assert_eq!(
        named(b"\x03WwW\x07example\x03org\x00"),
        Some("www.example.org".into())
    );
    assert_eq!(named(b"\x00"), None, "the root");
    assert_eq!(
        named(b"\x0bexample.org\x03com\x00"),
        None,
        "a dot in a label"
    );
    assert_eq!(named(b"\x03\xff\xfe\xfd\x03org\x00"), None);
    let name = DomainName::parse("www.example.org").unwrap();
    let asked = Query::addresses_of(&name);
    assert_eq!(Query::parse(&asked.numbered(7)).unwrap().name(), Some(name));
    assert_eq!(asked.kind(), TYPE_A);
}

#[test]
fn addresses_are_taken_from_an_answer() {
    let alias = b"\xc0\x0c\x00\x05\x00\x01\x00\x00\x00\x3c\x00\x04\x01b\xc0\x0c";
    let address = |last: u8, class: u8| {
        let mut record =
            b"\x01b\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc6\x33\x64".to_vec();
        record[7] = class;
        record.push(last);
        record
    };
    let said = |count: u8, records: &[&[u8]]| {
        let mut bytes = question(1)[..29].to_vec();
        bytes[2] |= FLAG_RESPONSE;
        bytes[7] = count;
        bytes[11] = 0;
        bytes.extend(records.concat());
        addresses(&bytes)
    };
    let [first, second] = [1, 2].map(|last| Ipv4Addr::new(198, 51, 100, last));
    let records: [&[u8]; 4] = [alias, &address(1, 1), &address(3, 3), &address(2, 1)];
    assert_eq!(said(4, &records), [first, second]);
    assert_eq!(said(2, &records), [first], "no more than are told");
    assert_eq!(said(9, &records), [first, second], "no more than are there");
    assert_eq!(said(1, &[alias]), [Ipv4Addr::UNSPECIFIED; 0]);
    let many = address(1, 1).repeat(99);
    assert_eq!(said(99, &[&many]).len(), ADDRESSES_MAX);
}
