//! System call filters: assembled once, installed in a process that is about to execute.
//!
//! Every sandbox pays for its filter when it is installed: the kernel translates the program and
//! runs it once for each call number that there is, to remember which calls always pass. So the
//! program is a tree: numbers are halved until one range of them with one answer is left. A list
//! that compares one number after the other takes the kernel 0.2 ms, this a fraction.

use std::io;

/// A call that is not let through.
#[derive(Debug, Clone)]
pub struct Denial {
    pub call: i64,
    /// What it answers.
    pub errno: i32,
    /// It is refused when all conditions of any one of these hold; with none, always.
    pub when: Vec<Vec<Condition>>,
}

/// About the lower half of an argument: the upper half of what the kernel takes as a C `int` is
/// anybody's to fill.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// 0 to 5.
    pub argument: u8,
    pub test: Test,
}

#[derive(Debug, Clone, Copy)]
pub enum Test {
    Is(u32),
    IsNot(u32),
    /// Any of these bits.
    Has(u32),
}

/// Why denials are no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("system call number {0} is out of range")]
    Number(i64),
    #[error("a system call has arguments 0 to 5, not {0}")]
    Argument(u8),
    /// Jumps reach 255 instructions.
    #[error("too many denials or conditions in one filter")]
    Length,
}

/// A filter that answers some system calls with an error and lets all others pass.
///
/// Calls of the x32 kind and of other architectures are all answered with `ENOSYS`.
#[derive(Debug, Clone)]
pub struct Filter(Vec<libc::sock_filter>);

impl Filter {
    /// Assembles the program.
    pub fn deny(denials: &[Denial]) -> Result<Self, FilterError> {
        let mut code = vec![
            load(ARCHITECTURE),
            jump(EQUAL, AUDIT_ARCH_X86_64, 1, 0),
            answer(libc::ENOSYS),
            load(NUMBER),
            jump(AT_LEAST, X32_BIT, 0, 1),
            answer(libc::ENOSYS),
        ];
        code.extend(tree(&ranges(denials)?));
        Ok(Self(code))
    }

    /// Installs it for the calling thread and all that it executes.
    ///
    /// Needs `CAP_SYS_ADMIN` in the thread's user namespace and never sets `no_new_privs`, which
    /// would disable setuid programs.
    pub fn install(&self) -> io::Result<()> {
        let length =
            u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
        let program = libc::sock_fprog {
            len: length,
            filter: self.0.as_ptr().cast_mut(),
        };
        // SAFETY: `program` points at `length` instructions; the kernel copies them, checks them
        // itself and writes nothing.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                0,
                &raw const program,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;
/// x32 calls have the architecture of ordinary ones and this bit in the number.
const X32_BIT: u32 = 0x4000_0000;

const EQUAL: u32 = libc::BPF_JEQ;
const AT_LEAST: u32 = libc::BPF_JGE;
const ANY_BIT: u32 = libc::BPF_JSET;

/// Calls from a number on, up to the next range, and what is done about them.
struct Range {
    first: u32,
    code: Vec<libc::sock_filter>,
}

/// All numbers, in order. Of several denials of one call the first counts.
fn ranges(denials: &[Denial]) -> Result<Vec<Range>, FilterError> {
    let mut by_number = std::collections::BTreeMap::new();
    for denial in denials {
        by_number.entry(number(denial)?).or_insert(denial);
    }
    let passing = |first| Range {
        first,
        code: vec![allow()],
    };
    let mut all = vec![passing(0)];
    let mut plain = None;
    for (number, denial) in by_number {
        // What follows the last denial passes from here on.
        let next = all.last().map_or(0, |range: &Range| range.first);
        let errno = denial.when.is_empty().then_some(denial.errno);
        if next == number {
            // The passing range before this one is empty, or belongs to the same refusal.
            all.pop();
        }
        if next != number || errno.is_none() || plain != errno {
            let code = match errno {
                Some(errno) => vec![answer(errno)],
                None => conditions(denial)?,
            };
            all.push(Range {
                first: number,
                code,
            });
        }
        plain = errno;
        all.push(passing(number + 1));
    }
    Ok(all)
}

/// Enters with the number loaded, ends with an answer.
fn tree(ranges: &[Range]) -> Vec<libc::sock_filter> {
    let (low, high) = match ranges {
        [] => return vec![allow()],
        [one] => return one.code.clone(),
        several => several.split_at(several.len() / 2),
    };
    let (first, low, high) = (high[0].first, tree(low), tree(high));
    let mut code = match u8::try_from(low.len()) {
        Ok(over) => vec![jump(AT_LEAST, first, over, 0)],
        // Only unconditional jumps reach further than 255 instructions.
        Err(_) => vec![
            jump(AT_LEAST, first, 0, 1),
            statement(
                libc::BPF_JMP | libc::BPF_JA,
                u32::try_from(low.len()).unwrap_or(u32::MAX),
            ),
        ],
    };
    code.extend(low);
    code.extend(high);
    code
}

/// Ends with an answer whatever holds; enters with the number loaded.
fn conditions(denial: &Denial) -> Result<Vec<libc::sock_filter>, FilterError> {
    let mut code = Vec::new();
    for all in &denial.when {
        // Two instructions for each condition, then the refusal.
        let length = 2 * all.len() + 1;
        for (at, condition) in all.iter().enumerate() {
            if condition.argument > 5 {
                return Err(FilterError::Argument(condition.argument));
            }
            code.push(load(ARGUMENTS + 8 * u32::from(condition.argument)));
            let next = length - 2 * at - 2;
            let next = u8::try_from(next).map_err(|_| FilterError::Length)?;
            code.push(match condition.test {
                Test::Is(value) => jump(EQUAL, value, 0, next),
                Test::IsNot(value) => jump(EQUAL, value, next, 0),
                Test::Has(bits) => jump(ANY_BIT, bits, 0, next),
            });
        }
        code.push(answer(denial.errno));
    }
    code.push(allow());
    Ok(code)
}

fn number(denial: &Denial) -> Result<u32, FilterError> {
    u32::try_from(denial.call).map_err(|_| FilterError::Number(denial.call))
}

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn allow() -> libc::sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW)
}

fn answer(errno: i32) -> libc::sock_filter {
    let errno = errno.unsigned_abs() & libc::SECCOMP_RET_DATA;
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    // Codes of classic BPF have 16 bits.
    libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
    libc::sock_filter { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Option<i32> = None;

    fn denial(call: i64, errno: i32, when: Vec<Vec<Condition>>) -> Denial {
        Denial { call, errno, when }
    }

    fn filter() -> Filter {
        let (is, is_not, has) = (
            |argument, value| Condition {
                argument,
                test: Test::Is(value),
            },
            |argument, value| Condition {
                argument,
                test: Test::IsNot(value),
            },
            |argument, bits| Condition {
                argument,
                test: Test::Has(bits),
            },
        );
        Filter::deny(&[
            denial(10, 1, vec![]),
            denial(11, 38, vec![]),
            denial(12, 1, vec![]),
            denial(
                20,
                97,
                vec![
                    vec![is_not(0, 1), is_not(0, 2)],
                    vec![is(0, 2), is_not(2, 0)],
                ],
            ),
            denial(21, 1, vec![vec![has(1, 0x30)]]),
        ])
        .unwrap()
    }

    /// What the kernel would do with a call.
    fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> Option<i32> {
        let mut data = [number.to_le_bytes(), arch.to_le_bytes(), [0; 4], [0; 4]].concat();
        args.iter().for_each(|arg| data.extend(arg.to_le_bytes()));
        let (mut at, mut loaded) = (0_usize, 0_u32);
        loop {
            let step = filter.0[at];
            at += 1;
            let taken = match u32::from(step.code) {
                0x20 => {
                    let word = data[step.k as usize..][..4].try_into().unwrap();
                    loaded = u32::from_le_bytes(word);
                    continue;
                }
                0x06 if step.k == libc::SECCOMP_RET_ALLOW => return None,
                0x06 => return Some((step.k & 0xffff) as i32),
                0x05 => {
                    at += step.k as usize;
                    continue;
                }
                0x15 => loaded == step.k,
                0x35 => loaded >= step.k,
                0x45 => loaded & step.k != 0,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if taken { step.jt } else { step.jf });
        }
    }

    #[track_caller]
    fn check(number: u32, args: [u64; 3], expected: Option<i32>) {
        let [a, b, c] = args;
        let said = run(&filter(), AUDIT_ARCH_X86_64, number, [a, b, c, 0, 0, 0]);
        assert_eq!(said, expected, "call {number} with {args:?}");
    }

    #[test]
    fn plain_denials_answer_their_own_error_and_neighbours_pass() {
        check(10, [0; 3], Some(1));
        check(11, [0; 3], Some(38));
        check(12, [0; 3], Some(1));
        check(9, [0; 3], ALLOWED);
        check(13, [0; 3], ALLOWED);
    }

    #[test]
    fn conditions_hold_together_and_alternatives_apart() {
        check(20, [1, 0, 9], ALLOWED);
        check(20, [2, 0, 0], ALLOWED);
        check(20, [2, 0, 9], Some(97));
        check(20, [3, 0, 0], Some(97));
        check(21, [0, 0x0f, 0], ALLOWED);
        check(21, [0, 0x10, 0], Some(1));
    }

    #[test]
    fn the_upper_half_of_an_argument_changes_nothing() {
        check(20, [0xffff_ffff_0000_0001, 0, 0], ALLOWED);
        check(20, [0xffff_ffff_0000_0003, 0, 0], Some(97));
    }

    #[test]
    fn other_kinds_of_calls_never_pass() {
        let filter = filter();
        assert_eq!(
            run(&filter, AUDIT_ARCH_X86_64, X32_BIT | 1, [0; 6]),
            Some(38)
        );
        assert_eq!(run(&filter, 0x4000_0003, 1, [0; 6]), Some(38));
    }

    #[test]
    fn what_cannot_be_assembled_is_an_error() {
        let bad = |denial| Filter::deny(&[denial]).unwrap_err();
        assert!(matches!(
            bad(denial(-1, 1, vec![])),
            FilterError::Number(-1)
        ));
        let condition = Condition {
            argument: 6,
            test: Test::Is(0),
        };
        assert!(matches!(
            bad(denial(1, 1, vec![vec![condition]])),
            FilterError::Argument(6)
        ));
    }

    #[test]
    fn each_of_very_many_calls_finds_its_own_answer() {
        let many: Vec<_> = (0..400)
            .map(|call| denial(2 * call, 1 + call as i32 % 7, vec![]))
            .collect();
        let filter = Filter::deny(&many).unwrap();
        for call in 0..900 {
            let expected = (call < 800 && call % 2 == 0).then_some(1 + call / 2 % 7);
            let said = run(&filter, AUDIT_ARCH_X86_64, call as u32, [0; 6]);
            assert_eq!(said, expected, "call {call}");
        }
    }
}
