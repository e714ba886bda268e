//! What is kept of a stream without end: its head, its tail and the number of bytes between them.
//! Reads all there is, so that the writer never blocks.

use std::collections::VecDeque;
use std::fmt::Write as _;

use tokio::io::{AsyncRead, AsyncReadExt};

#[derive(Debug)]
pub struct Capture {
    /// Of head and of tail each.
    half: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    cut: u64,
}

impl Capture {
    /// Keeps at most `limit` bytes.
    pub fn new(limit: usize) -> Capture {
        Capture {
            half: limit / 2,
            head: Vec::new(),
            tail: VecDeque::new(),
            cut: 0,
        }
    }

    /// Bytes that were let go between head and tail.
    pub fn cut_bytes(&self) -> u64 {
        self.cut
    }

    /// The text, without NUL, with U+FFFD for what is not UTF-8 and a line in place of what was cut. Not much longer than
    /// the limit even where every byte was replaced by the three of U+FFFD.
    pub fn text(&self) -> String {
        let (a, b) = self.tail.as_slices();
        if self.cut == 0 {
            let all = [&self.head, a, b].concat();
            return clean(&all, 2 * self.half);
        }
        let mut text = clean(&self.head, self.half);
        let _ = write!(text, "\n[... {} bytes cut ...]\n", self.cut);
        text.push_str(&clean(&[a, b].concat(), self.half));
        text
    }

    /// Reads `stream` to its end. What was read stays when the future is dropped.
    pub(crate) async fn drain(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut buffer = vec![0; 16 * 1024];
        // An error ends the output like its end does: the exit code tells the rest.
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            self.push(&buffer[..n]);
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let (to_head, rest) = bytes.split_at(bytes.len().min(self.half - self.head.len()));
        self.head.extend_from_slice(to_head);
        let surplus = (self.tail.len() + rest.len()).saturating_sub(self.half);
        self.cut += surplus as u64;
        let from_tail = surplus.min(self.tail.len());
        self.tail.drain(..from_tail);
        self.tail.extend(&rest[surplus - from_tail..]);
    }
}

fn clean(bytes: &[u8], limit: usize) -> String {
    let mut text = String::from_utf8_lossy(bytes).replace('\0', "");
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_output_is_kept_whole_even_where_a_character_spans_head_and_tail() {
        let mut capture = Capture::new(4);
        capture.push("aä".as_bytes());
        capture.push(b"b");
        assert_eq!(capture.text(), "aäb");
        assert_eq!(capture.cut_bytes(), 0);
    }

    #[test]
    fn long_output_keeps_head_and_tail_and_counts_the_rest() {
        let mut capture = Capture::new(8);
        for _ in 0..100 {
            capture.push(b"0123456789");
        }
        assert_eq!(capture.cut_bytes(), 992);
        assert_eq!(capture.text(), "0123\n[... 992 bytes cut ...]\n6789");
    }

    #[test]
    fn nul_is_stripped_and_what_is_not_utf8_is_replaced() {
        let mut capture = Capture::new(64);
        capture.push(b"a\0b\xffc");
        assert_eq!(capture.text(), "ab\u{fffd}c");
    }

    proptest! {
        #[test]
        fn nothing_is_lost_uncounted(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut capture = Capture::new(32);
            let all = chunks.concat();
            for chunk in &chunks {
                capture.push(chunk);
            }
            let kept = capture.head.len() + capture.tail.len();
            prop_assert!(kept <= 32);
            prop_assert_eq!(kept as u64 + capture.cut_bytes(), all.len() as u64);
            prop_assert!(all.starts_with(&capture.head));
            prop_assert!(all.ends_with(capture.tail.make_contiguous()));
            prop_assert!(capture.text().len() <= 32 + 40);
        }
    }
}
