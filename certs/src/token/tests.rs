//! Tokens as they are typed, hashed and kept out of logs.

use proptest::prelude::*;

use super::*;

const SAMPLE: &str = "mst_0123456789abcdef_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

#[test]
fn a_token_survives_being_shown_and_typed() {
    let token = Token::generate().unwrap();
    let again = Token::parse(&format!("  {}\n", *token.expose())).unwrap();
    assert_eq!(again.expose(), token.expose());
    assert_eq!(again.id(), token.id());
    assert!(hash_eq(&again.hash(), &token.hash()));
}

#[test]
fn no_two_tokens_are_alike() {
    let (a, b) = (Token::generate().unwrap(), Token::generate().unwrap());
    assert_ne!(a.id(), b.id());
    assert!(!hash_eq(&a.hash(), &b.hash()));
}

#[test]
fn a_derived_token_is_the_same_again_and_another_for_all_else() {
    let of = |key: &[u8], label: &str, parts: &[&[u8]]| {
        let seed = Seed::of(key, label, parts).unwrap();
        let token = Token::derive(&seed).unwrap();
        assert!(!format!("{seed:?}").contains(token.id()));
        token.expose()
    };
    let one = of(b"key", "label", &[b"ab", b"c"]);
    assert_eq!(one, of(b"key", "label", &[b"ab", b"c"]));
    assert_eq!(Token::parse(&one).unwrap().expose(), one);
    for other in [
        of(b"another", "label", &[b"ab", b"c"]),
        of(b"key", "another", &[b"ab", b"c"]),
        of(b"key", "label", &[b"a", b"bc"]),
        of(b"key", "label", &[b"abc"]),
        of(b"key", "label", &[b"ab", b"c", b""]),
    ] {
        assert_ne!(one, other);
        assert_ne!(Token::parse(&one).unwrap().id(), Token::parse(&other).unwrap().id());
    }
}

#[test]
fn a_derived_key_shares_nothing_with_the_token_of_the_same_seed() {
    let seed = Seed::of(b"key", "label", &[]).unwrap();
    let (token, key) = (Token::derive(&seed).unwrap(), ApiKey::derive(&seed).unwrap());
    assert_ne!(token.id(), key.id());
    assert!(!hash_eq(&token.hash(), &key.hash()));
}

#[test]
fn the_hash_is_of_the_secret_part_alone() {
    let token = Token::parse(SAMPLE).unwrap();
    assert_eq!(token.id(), "0123456789abcdef");
    assert_eq!(token.hash(), fingerprint::sha256(&SAMPLE.as_bytes()[21..]));
    let same_secret = SAMPLE.replace("mst_0123", "mst_ffff");
    assert!(hash_eq(&Token::parse(&same_secret).unwrap().hash(), &token.hash()));
}

#[test]
fn hashes_of_different_length_differ() {
    assert!(!hash_eq(&[0; 32], &[0; 31]));
    assert!(hash_eq(&[], &[]));
}

#[test]
fn the_secret_is_not_in_debug() {
    assert_eq!(
        format!("{:?}", Token::parse(SAMPLE).unwrap()),
        "mst_0123456789abcdef, secret redacted"
    );
}

#[test]
fn a_wrong_token_is_refused_without_being_repeated() {
    let cases = [
        ("", Error::Empty("a token")),
        (" \n\t", Error::Empty("a token")),
        ("00112233445566778899aabbccddeeff", Error::Prefix("a token", "mst_")),
        ("MST_0123456789abcdef_", Error::Prefix("a token", "mst_")),
        ("mst_", Error::Malformed("a token", "mst_")),
        ("mst_0123456789abcdef", Error::Malformed("a token", "mst_")),
        (&SAMPLE[..SAMPLE.len() - 1], Error::Malformed("a token", "mst_")),
        (&format!("{SAMPLE}0"), Error::Malformed("a token", "mst_")),
        (&SAMPLE.replace("aabb", "AABB"), Error::Malformed("a token", "mst_")),
        (&SAMPLE.replace("aabb", "gghh"), Error::Malformed("a token", "mst_")),
        (
            &SAMPLE.replacen("0123456789abcdef_", "0123456789abcde_f", 1),
            Error::Malformed("a token", "mst_"),
        ),
        (&SAMPLE.replace("44", "4 4"), Error::Malformed("a token", "mst_")),
        (&" ".repeat(MAX_BYTES + 1), Error::Malformed("a token", "mst_")),
    ];
    for (text, expected) in cases {
        let error = Token::parse(text).unwrap_err();
        assert_eq!(error, expected, "{text:?}");
        assert!(!error.to_string().contains("00112233"), "{error}");
    }
}

proptest! {
    #[test]
    fn every_token_of_the_right_form_is_read_as_written(text in "mst_[0-9a-f]{16}_[0-9a-f]{64}") {
        prop_assert_eq!(&*Token::parse(&text).unwrap().expose(), &text);
    }

    #[test]
    fn blanks_and_line_ends_around_a_token_are_none_of_it(before in "[ \t\r\n]{0,20}", after in "[ \t\r\n]{0,20}") {
        let token = Token::parse(&format!("{before}{SAMPLE}{after}")).unwrap();
        prop_assert_eq!(&*token.expose(), SAMPLE);
    }

    #[test]
    fn every_token_survives_being_shown_and_parsed(_ in 0..16u8) {
        let token = Token::generate().unwrap();
        let again = Token::parse(&token.expose()).unwrap();
        prop_assert_eq!(again.hash(), token.hash());
        prop_assert_eq!(again.id(), token.id());
    }

    /// One other character anywhere is another token or none; never the same.
    #[test]
    fn one_changed_character_makes_another_token_or_none(at in 0..85usize, other in any::<char>()) {
        let token = Token::parse(SAMPLE).unwrap();
        let mut text: Vec<char> = SAMPLE.chars().collect();
        prop_assume!(text[at] != other);
        text[at] = other;
        if let Ok(changed) = Token::parse(&text.iter().collect::<String>()) {
            prop_assert!(changed.id() != token.id() || !hash_eq(&changed.hash(), &token.hash()), "{:?}", text[at]);
        }
    }

    #[test]
    fn longer_texts_are_refused_unread(blanks in MAX_BYTES..4 * MAX_BYTES) {
        let text = format!("{}{SAMPLE}", " ".repeat(blanks));
        prop_assert_eq!(Token::parse(&text).unwrap_err(), Error::Malformed("a token", "mst_"));
    }

    #[test]
    fn bytes_that_are_no_ascii_are_in_no_token(text in "\\PC{1,90}") {
        let text: String = text.chars().filter(|character| !character.is_ascii()).collect();
        prop_assume!(!text.trim().is_empty());
        for wrong in [format!("mst_{text}_{text}"), format!("{SAMPLE}{text}"), SAMPLE.replacen('0', &text, 1)] {
            prop_assert!(Token::parse(&wrong).is_err());
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>(), tail in "[0-9a-f_]{0,90}") {
        prop_assert!(Token::parse(&text).is_err());
        let _ = Token::parse(&format!("mst_{text}"));
        let _ = Token::parse(&format!("mst_{tail}"));
        let _ = Token::parse(&format!("mst_0123456789abcdef_{tail}{text}"));
    }
}
