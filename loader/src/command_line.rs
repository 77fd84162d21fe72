//! The kernel's command line: QEMU's `-append`, and one word of the loader's own.

/// The word that tells the kernel the time-stamp counter's value at the loader's first instruction, as
/// `loader_tsc=` and lower-case hexadecimal digits, so that the kernel can say how long the whole boot took.
pub const TSC_WORD: &str = "loader_tsc=";

/// How many bytes [`build`] needs beside the words that it is given.
pub const EXTRA: usize = 1 + TSC_WORD.len() + 16 + 1;

/// Writes `words`, a space and the loader's word, and a terminating zero into `target`, which has at least
/// `words.len() + EXTRA` bytes. Gives the number of bytes written. A zero in `words` ends them.
pub fn build(words: &[u8], tsc: u64, target: &mut [u8]) -> usize {
    let words = words
        .split(|byte| *byte == 0)
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        target[length..length + bytes.len()].copy_from_slice(bytes);
        length += bytes.len();
    };
    put(words);
    if !words.is_empty() {
        put(b" ");
    }
    put(TSC_WORD.as_bytes());
    let digits = (64 - tsc.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        put(&[b"0123456789abcdef"[((tsc >> (4 * digit)) & 15) as usize]]);
    }
    put(&[0]);
    length
}

/// True if `words` has `word` between blanks.
pub fn has(words: &[u8], word: &str) -> bool {
    words
        .split(|byte| byte.is_ascii_whitespace() || *byte == 0)
        .any(|found| found == word.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec};

    fn built(words: &[u8], tsc: u64) -> String {
        let mut target = vec![0xff; words.len() + EXTRA];
        let length = build(words, tsc, &mut target);
        assert_eq!(target[length - 1], 0);
        String::from_utf8(target[..length - 1].to_vec()).unwrap()
    }

    #[test]
    fn the_word_comes_last() {
        assert_eq!(
            built(b"stats files", 0xdead_beef),
            "stats files loader_tsc=deadbeef"
        );
        assert_eq!(built(b"", 0), "loader_tsc=0");
        assert_eq!(built(b"a \0b", 0x10), "a loader_tsc=10");
        assert_eq!(built(b"a", u64::MAX), "a loader_tsc=ffffffffffffffff");
    }

    #[test]
    fn words_are_whole() {
        assert!(has(b"stats quiet", "quiet"));
        assert!(has(b"quiet", "quiet"));
        assert!(!has(b"quieter", "quiet"));
        assert!(!has(b"", "quiet"));
    }
}
