//! SHA-256 and hexadecimal text: how keys, pins and serial numbers are written.

use aws_lc_rs::digest;

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// "sha256:" and 64 lower-case hexadecimal digits.
pub(crate) fn label(digest: &[u8; 32]) -> String {
    format!("sha256:{}", hex(digest))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|n| DIGITS[usize::from(n)] as char)
        .collect()
}

/// Exactly `N` bytes, in either case.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_written_as_the_standard_tools_write_it() {
        assert_eq!(
            label(&sha256(b"abc")),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn hexadecimal_is_read_in_either_case_and_only_in_full() {
        assert_eq!(unhex::<2>("00Ff"), Some([0, 255]));
        for wrong in ["", "0", "00f", "00fff", "0g00", "é00", "+1+1"] {
            assert_eq!(unhex::<2>(wrong), None, "{wrong:?}");
        }
    }
}
