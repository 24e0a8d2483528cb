//! Where instructions begin. The kernel does not ask when it puts a uprobe's breakpoint into a program, and one in the midst of an
//! instruction makes the program do something else, or die.

use anyhow::{Result, bail};

/// Checks that an instruction begins `at` bytes after the beginning of `code`, where one does.
///
/// # Errors
/// When none does; says between which the place is.
#[cfg(target_arch = "x86_64")]
pub(crate) fn check(code: &[u8], at: u64) -> Result<()> {
    let mut decoder = iced_x86::Decoder::with_ip(64, code, 0, iced_x86::DecoderOptions::NONE);
    let mut begin = 0;
    while decoder.ip() < at && decoder.can_decode() {
        begin = decoder.ip();
        if decoder.decode().is_invalid() {
            bail!("the {begin} bytes before it cannot be told apart into instructions");
        }
    }
    match decoder.ip() {
        end if end < at => bail!("the code ends {end} bytes after the function's beginning"),
        end if end > at => bail!("no instruction begins there, but at +{begin:#x} and +{end:#x}"),
        _ => Ok(()),
    }
}

/// The same where all instructions have four bytes.
///
/// # Errors
/// When none begins there.
#[cfg(target_arch = "aarch64")]
pub(crate) fn check(code: &[u8], at: u64) -> Result<()> {
    if at >= code.len() as u64 {
        bail!("the code ends {} bytes after the function's beginning", code.len());
    }
    if !at.is_multiple_of(4) {
        bail!("no instruction begins there: they have 4 bytes each");
    }
    Ok(())
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn instructions_begin_where_the_one_before_ends() {
        // push rbp; mov rbp, rsp; sub rsp, 0x10; ret
        let code = [0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0xc3];
        let begins: Vec<u64> = (0..9).filter(|at| check(&code, *at).is_ok()).collect();
        assert_eq!(begins, [0, 1, 4, 8]);
        let error = check(&code, 2).unwrap_err().to_string();
        assert!(error.contains("at +0x1 and +0x4"), "{error}");
        assert!(check(&code, 10).unwrap_err().to_string().contains("ends 9 bytes"));
        // An opcode that there is not in 64 bits.
        assert!(check(&[0x06, 0x90], 1).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_told_apart_or_refused(code in proptest::collection::vec(0u8.., 0..64), at in 0u64..80) {
            let _ = check(&code, at);
        }
    }
}
