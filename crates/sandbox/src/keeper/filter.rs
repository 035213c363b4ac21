//! A seccomp profile as the program that the kernel runs before each system call.
//!
//! Classic BPF, seccomp(2): the first rule that fits decides. It compiles and installs; what a
//! profile should say is in `profile`.

use std::io;

use libc::sock_filter;
use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator,
};

use super::syscalls;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;
/// How many arguments a call has.
const MAX_ARGUMENTS: usize = 6;
/// The kernel's `BPF_MAXINSNS`.
const MAX_INSTRUCTIONS: usize = 4096;
/// `AUDIT_ARCH_…`: calls in the way of another architecture have other numbers.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;
/// Where x86-64 numbers the calls of programs with 32-bit pointers, which no profile names.
const LAST_NATIVE: u32 = 0x3fff_ffff;
/// The call is answered as one that this kernel does not have.
const MISSING: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const GREATER: u32 = libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K;
const NOT_LESS: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Where a step of a condition goes on.
#[derive(Debug, Clone, Copy)]
enum To {
    Next,
    /// The condition holds.
    Holds,
    /// The rule does not fit.
    Fails,
}

/// One instruction of a condition.
type Step = (u32, u32, To, To);

/// The program of a profile.
///
/// # Errors
/// One line of what this node cannot do.
pub(super) fn compile(profile: &LinuxSeccomp) -> Result<Vec<sock_filter>, String> {
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    // Calls newer than the table: a program that gets ENOSYS tries an older call.
    let known = if default == libc::SECCOMP_RET_ALLOW { LAST_NATIVE } else { syscalls::newest() };
    let mut code = vec![
        plain(LOAD, ARCHITECTURE),
        jump(EQUAL, NATIVE, 1, 0),
        plain(RETURN, MISSING),
        plain(LOAD, NUMBER),
        jump(GREATER, known, 0, 1),
        plain(RETURN, MISSING),
    ];
    for rule in profile.syscalls().iter().flatten() {
        let verdict = action(rule.action(), rule.errno_ret())?;
        let conditions = rule.args().as_deref().unwrap_or_default();
        for number in rule.names().iter().filter_map(|name| syscalls::number(name)) {
            for together in alternatives(conditions) {
                add_rule(&mut code, number, together, verdict)?;
            }
        }
    }
    code.push(plain(RETURN, default));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(format!("the profile has more than {MAX_INSTRUCTIONS} instructions"));
    }
    Ok(code)
}

/// Puts this thread, and what it becomes, under a program. Needs `CAP_SYS_ADMIN` where the thread
/// may still gain privileges.
#[expect(unsafe_code, reason = "a system call with a C structure")]
pub(super) fn install(program: &mut [sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the kernel reads `len` instructions, which live until it returns.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, String> {
    match action {
        LinuxSeccompAction::ScmpActNotify => Err("SCMP_ACT_NOTIFY is not supported".to_owned()),
        other => Ok(other.as_u32(errno)),
    }
}

/// Conditions of a rule hold together; those on one argument are alternatives, as in runc.
fn alternatives(conditions: &[LinuxSeccompArg]) -> Vec<&[LinuxSeccompArg]> {
    let mut indexes: Vec<usize> = conditions.iter().map(LinuxSeccompArg::index).collect();
    indexes.sort_unstable();
    indexes.dedup();
    if indexes.len() == conditions.len() {
        vec![conditions]
    } else {
        conditions.chunks(1).collect()
    }
}

/// Answers this call with a verdict where all conditions hold; else the number is loaded again.
fn add_rule(
    code: &mut Vec<sock_filter>,
    number: u32,
    conditions: &[LinuxSeccompArg],
    verdict: u32,
) -> Result<(), String> {
    let blocks: Vec<Vec<Step>> = conditions.iter().map(steps).collect::<Result<_, _>>()?;
    let length: usize = blocks.iter().map(Vec::len).sum();
    let reload = usize::from(length > 0);
    code.push(jump(EQUAL, number, 0, offset(length + 1 + reload)?));
    let (mut position, mut end) = (0, 0);
    for block in blocks {
        end += block.len();
        for (operation, operand, yes, no) in block {
            position += 1;
            let to = |to: To| match to {
                To::Next => offset(0),
                To::Holds => offset(end - position),
                To::Fails => offset(length + 1 - position),
            };
            code.push(jump(operation, operand, to(yes)?, to(no)?));
        }
    }
    code.push(plain(RETURN, verdict));
    if reload > 0 {
        code.push(plain(LOAD, NUMBER));
    }
    Ok(())
}

/// How one argument, of 64 bits, is compared in two halves of 32.
fn steps(condition: &LinuxSeccompArg) -> Result<Vec<Step>, String> {
    use To::{Fails, Holds, Next};
    let index = condition.index();
    if index >= MAX_ARGUMENTS {
        return Err(format!("a system call has no argument {index}"));
    }
    let low_at = ARGUMENTS + 8 * u32::try_from(index).unwrap_or_default();
    let load = |at| (LOAD, at, Next, Next);
    let (low, high) = (load(low_at), load(low_at + 4));
    let halves = |value: u64| {
        let part = |value: u64| u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
        (part(value), part(value >> 32))
    };
    let (value_low, value_high) = halves(condition.value());
    let ordered = |operation, above, equal_high, yes, no| {
        vec![
            high,
            (GREATER, value_high, above, Next),
            (EQUAL, value_high, Next, equal_high),
            low,
            (operation, value_low, yes, no),
        ]
    };
    Ok(match condition.op() {
        LinuxSeccompOperator::ScmpCmpEq => {
            vec![high, (EQUAL, value_high, Next, Fails), low, (EQUAL, value_low, Holds, Fails)]
        }
        LinuxSeccompOperator::ScmpCmpNe => {
            vec![high, (EQUAL, value_high, Next, Holds), low, (EQUAL, value_low, Fails, Holds)]
        }
        LinuxSeccompOperator::ScmpCmpGt => ordered(GREATER, Holds, Fails, Holds, Fails),
        LinuxSeccompOperator::ScmpCmpGe => ordered(NOT_LESS, Holds, Fails, Holds, Fails),
        LinuxSeccompOperator::ScmpCmpLe => ordered(GREATER, Fails, Holds, Fails, Holds),
        LinuxSeccompOperator::ScmpCmpLt => ordered(NOT_LESS, Fails, Holds, Fails, Holds),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            let (two_low, two_high) = halves(condition.value_two().unwrap_or_default());
            vec![
                high,
                (AND, value_high, Next, Next),
                (EQUAL, two_high, Next, Fails),
                low,
                (AND, value_low, Next, Next),
                (EQUAL, two_low, Holds, Fails),
            ]
        }
    })
}

fn offset(instructions: usize) -> Result<u8, String> {
    u8::try_from(instructions).map_err(|_| "a rule has too many conditions".to_owned())
}

fn plain(operation: u32, operand: u32) -> sock_filter {
    jump(operation, operand, 0, 0)
}

fn jump(operation: u32, operand: u32, yes: u8, no: u8) -> sock_filter {
    let code = u16::try_from(operation).unwrap_or_default();
    sock_filter { code, jt: yes, jf: no, k: operand }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const DENY: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    /// What the kernel would do, by the few instructions that are used.
    fn run(program: &[sock_filter], architecture: u32, number: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let step = &program[at];
            at += 1;
            let test = match u32::from(step.code) {
                RETURN => return step.k,
                LOAD => {
                    accumulator = match step.k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        offset => {
                            let offset = offset - ARGUMENTS;
                            let value = args[offset as usize / 8];
                            if offset.is_multiple_of(8) {
                                value as u32
                            } else {
                                (value >> 32) as u32
                            }
                        }
                    };
                    continue;
                }
                AND => {
                    accumulator &= step.k;
                    continue;
                }
                EQUAL => accumulator == step.k,
                GREATER => accumulator > step.k,
                NOT_LESS => accumulator >= step.k,
                other => panic!("operation {other}"),
            };
            at += usize::from(if test { step.jt } else { step.jf });
        }
    }

    fn verdict(profile: &str, name: &str, first: u64) -> u32 {
        let profile: LinuxSeccomp = serde_json::from_str(profile).unwrap();
        let program = compile(&profile).unwrap();
        run(&program, NATIVE, syscalls::number(name).unwrap(), [first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#;
        assert_eq!(verdict(profile, "read", 0), ALLOW);
        assert_eq!(verdict(profile, "mkdirat", 0), libc::SECCOMP_RET_ERRNO | 13);
        assert_eq!(verdict(profile, "write", 0), DENY);
        let program = compile(&serde_json::from_str(profile).unwrap()).unwrap();
        assert_eq!(run(&program, NATIVE, 9999, [0; 6]), MISSING, "newer than the table");
        assert_eq!(run(&program, NATIVE ^ 1, 0, [0; 6]), MISSING, "another architecture");
        let open =
            compile(&serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#).unwrap());
        assert_eq!(run(&open.unwrap(), NATIVE, 0x4000_0000, [0; 6]), MISSING, "the other numbers");
    }

    #[test]
    fn arguments_are_compared_in_all_their_bits() {
        let big = 5 << 32;
        for (op, value, two, holds, fails) in [
            ("SCMP_CMP_EQ", big + 7, 0, vec![big + 7], vec![7, big, big + 8]),
            ("SCMP_CMP_NE", big + 7, 0, vec![7, big], vec![big + 7]),
            ("SCMP_CMP_GT", big + 7, 0, vec![big + 8, 6 << 32], vec![big + 7, 9, 0]),
            ("SCMP_CMP_GE", big + 7, 0, vec![big + 7, 6 << 32], vec![big + 6, 9]),
            ("SCMP_CMP_LT", big + 7, 0, vec![big + 6, 9], vec![big + 7, 6 << 32]),
            ("SCMP_CMP_LE", big + 7, 0, vec![big + 7, 9], vec![big + 8, 6 << 32]),
            ("SCMP_CMP_MASKED_EQ", 0xf0, 0x10, vec![0x1f, big + 0x10], vec![0x2f, 0]),
        ] {
            let profile = serde_json::json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
                "names": ["clone"], "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]}]});
            let profile = profile.to_string();
            for first in holds {
                assert_eq!(verdict(&profile, "clone", first), ALLOW, "{op} {first:#x}");
            }
            for first in fails {
                assert_eq!(verdict(&profile, "clone", first), DENY, "{op} {first:#x}");
            }
        }
    }

    #[test]
    fn conditions_on_one_argument_are_alternatives() {
        let profile = r#"{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
            "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]}]}"#;
        assert_eq!([0, 8, 9].map(|it| verdict(profile, "personality", it)), [ALLOW, ALLOW, DENY]);
    }

    #[test]
    fn what_cannot_be_done_is_said() {
        let bad = |text: &str| compile(&serde_json::from_str(text).unwrap()).unwrap_err();
        assert!(bad(r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#).contains("SCMP_ACT_NOTIFY"));
        let text = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["read"],
            "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#;
        assert!(bad(text).contains("no argument 6"));
    }
}
