//! Whether bytes have the shape of DER, found out without recursion and without memory, before any parser sees them. What
//! they say is not looked at.

/// A request of ours nests four deep, one with every attribute that is in use nine.
pub(super) const MAX_DEPTH: usize = 16;

/// Whether the first element has the shape of DER: definite lengths in their shortest form, each part within its whole, and
/// at most [`MAX_DEPTH`] of them in each other. What follows the first element is not looked at.
pub(super) fn is_der(der: &[u8]) -> bool {
    // Where the elements end that the next byte is in.
    let mut ends = [0; MAX_DEPTH];
    let mut depth = 0;
    let mut at = 0;
    loop {
        let Some((head, length)) = head(&der[at..]) else {
            return false;
        };
        let whole = if depth == 0 { der.len() } else { ends[depth - 1] };
        if length > whole.saturating_sub(at + head) {
            return false;
        }
        let is_constructed = der[at] & 0x20 != 0;
        at += head;
        if is_constructed {
            if depth == MAX_DEPTH {
                return false;
            }
            ends[depth] = at + length;
            depth += 1;
        } else {
            at += length;
        }
        while depth > 0 && ends[depth - 1] == at {
            depth -= 1;
        }
        if depth == 0 {
            return true;
        }
    }
}

/// How long tag and length are, and the length of the content. Tags of several bytes are not used in requests.
fn head(der: &[u8]) -> Option<(usize, usize)> {
    match *der {
        [tag, ..] if tag & 0x1f == 0x1f => None,
        [_, length @ 0..=0x7f, ..] => Some((2, length.into())),
        [_, 0x81, length @ 0x80..=0xff, ..] => Some((3, length.into())),
        [_, 0x82, high @ 1..=0xff, low, ..] => Some((4, usize::from(high) << 8 | usize::from(low))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// SEQUENCE in SEQUENCE, so many of them.
    fn nested(depth: usize) -> Vec<u8> {
        (0..depth).fold(Vec::new(), |inner, _| element(0x30, &inner))
    }

    fn element(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let head = match length {
            0..0x80 => vec![tag, length as u8],
            0x80..0x100 => vec![tag, 0x81, length as u8],
            _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
        };
        [head.as_slice(), content].concat()
    }

    #[test]
    fn the_depth_is_bounded_to_the_element() {
        assert!(is_der(&nested(MAX_DEPTH)));
        assert!(!is_der(&nested(MAX_DEPTH + 1)));
        assert!(!is_der(&nested(4000)));
        assert!(!is_der(&[0x30; 16 * 1024]));
    }

    #[test]
    fn lengths_have_their_shortest_form_and_stay_within_their_whole() {
        let long = element(4, &[7; 300]);
        assert!(is_der(&long) && is_der(&element(0x30, &long)) && is_der(&element(4, &[7; 200])));
        for wrong in [
            &[][..],
            &[0x30],
            &[0x30, 0x80, 0, 0],
            &[0x30, 0x81, 0x7f],
            &[0x30, 0x82, 0, 0x80],
            &[0x30, 0x83, 1, 0, 0],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
            &[0x30, 2, 4, 1],
            &[0x30, 3, 4, 2, 7, 7],
            &[0x3f, 0x81, 1, 0],
            &[4, 2, 7],
        ] {
            assert!(!is_der(wrong), "{wrong:x?}");
        }
    }

    fn trees() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop::collection::vec(any::<u8>(), 0..40).prop_map(|content| element(4, &content));
        leaf.prop_recursive(8, 64, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(|parts| element(0x30, &parts.concat()))
        })
    }

    proptest! {
        #[test]
        fn every_tree_has_the_shape_and_no_part_of_one_has(tree in trees(), at in any::<prop::sample::Index>()) {
            prop_assert!(is_der(&tree));
            prop_assert!(!is_der(&tree[..at.index(tree.len())]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = is_der(&bytes);
            let _ = is_der(&[&[0x30, 0x81, 0xc0], bytes.as_slice()].concat());
        }
    }
}
