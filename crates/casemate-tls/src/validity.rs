//! From when to when a certificate holds, read from its DER: the one thing that we ask of a
//! certificate and that rustls does not tell.
//!
//! ```text
//! Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version?, serial, algorithm, issuer,
//!                                           validity SEQUENCE { notBefore, notAfter }, … } … }
//! ```

use time::{Date, Month, PrimitiveDateTime, Time};

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// Both ends, in seconds of the wall clock since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Validity {
    /// `None`: this is no certificate.
    pub(crate) fn of(certificate: &[u8]) -> Option<Self> {
        let (mut outer, _) = take(certificate, SEQUENCE)?;
        let (mut tbs, _) = take(outer, SEQUENCE)?;
        if tbs.first() == Some(&VERSION) {
            tbs = skip(tbs)?;
        }
        // Serial, algorithm, issuer.
        for _ in 0..3 {
            tbs = skip(tbs)?;
        }
        (outer, _) = take(tbs, SEQUENCE)?;
        let (not_before, rest) = moment(outer)?;
        let (not_after, _) = moment(rest)?;
        Some(Self {
            not_before,
            not_after,
        })
    }

    /// When a new one should be there: at two thirds of its life.
    pub fn renew_at(&self) -> i64 {
        self.not_after - (self.not_after - self.not_before) / 3
    }
}

/// The content of the first value, which must have this tag, and what follows it.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    (*bytes.first()? == tag).then(|| split(bytes))?
}

fn skip(bytes: &[u8]) -> Option<&[u8]> {
    split(bytes).map(|(_, rest)| rest)
}

/// Content of the first value, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // A certificate has no value that needs more than three bytes of length.
        0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            let add = |sum: usize, byte: &u8| sum << 8 | usize::from(*byte);
            (length.iter().fold(0, add), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Reads `[YY]YYMMDDhhmmssZ`.
fn moment(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let tag = *bytes.first()?;
    let (content, rest) = split(bytes)?;
    let digits = content.strip_suffix(b"Z")?;
    // `parse` alone would take signs and single digits.
    if digits.len() % 2 != 0 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let pairs: Vec<u8> = digits
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok()?.parse().ok())
        .collect::<Option<_>>()?;
    let (year, pairs) = match (tag, pairs.as_slice()) {
        (UTC_TIME, [year, rest @ ..]) => {
            let century = if *year < 50 { 2000 } else { 1900 };
            (century + i32::from(*year), rest)
        }
        (GENERALIZED_TIME, [century, year, rest @ ..]) => {
            (i32::from(*century) * 100 + i32::from(*year), rest)
        }
        _ => return None,
    };
    let [month, day, hour, minute, second] = *pairs else {
        return None;
    };
    let date = Date::from_calendar_date(year, Month::try_from(month).ok()?, day).ok()?;
    let time = Time::from_hms(hour, minute, second).ok()?;
    let at = PrimitiveDateTime::new(date, time).assume_utc();
    Some((at.unix_timestamp(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        let utc = [&[UTC_TIME, 13], &b"261126210048Z"[..]].concat();
        let general = [&[GENERALIZED_TIME, 15], &b"20261126210048Z"[..]].concat();
        assert_eq!(moment(&utc), Some((1_795_726_848, &[][..])));
        assert_eq!(moment(&utc), moment(&general));
        let old = [&[UTC_TIME, 13], &b"700101000000Z"[..]].concat();
        assert_eq!(moment(&old), Some((0, &[][..])));
        for wrong in [
            "261326210048Z",
            "26112621004Z",
            "2611262100480",
            "+61126210048Z",
        ] {
            let mut bytes = vec![UTC_TIME, u8::try_from(wrong.len()).unwrap()];
            bytes.extend(wrong.bytes());
            assert_eq!(moment(&bytes), None, "{wrong}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_none_and_does_not_panic() {
        let signed = rcgen::generate_simple_self_signed(vec!["a.example".into()]).unwrap();
        let der = signed.cert.der().as_ref();
        assert!(Validity::of(der).is_some());
        for length in 0..der.len() {
            let _ = Validity::of(&der[..length]);
            let mut broken = der.to_vec();
            broken[length] ^= 0xff;
            let _ = Validity::of(&broken);
        }
        assert_eq!(Validity::of(&[]), None);
        assert_eq!(Validity::of(&[SEQUENCE, 0x84, 1, 1, 1, 1]), None);
    }
}
