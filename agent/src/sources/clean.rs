//! Making strings from outside fit to be shown, logged and used as label values.

use std::borrow::Cow;

/// Longest name label (RFC 1035, 2.3.4), in bytes.
const LABEL_BYTES: usize = 63;
/// Longest other text, in bytes.
const TEXT_BYTES: usize = 256;

/// A name of one label: at most 63 bytes; `fallback` when nothing is left.
pub(crate) fn label(raw: &str, fallback: &str) -> String {
    clean(raw, LABEL_BYTES, fallback)
}

/// Any other text: at most 256 bytes; `fallback` when nothing is left.
pub(crate) fn text(raw: &str, fallback: &str) -> String {
    clean(raw, TEXT_BYTES, fallback)
}

/// Bytes as text, invalid UTF-8 replaced.
pub(crate) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Removes what is not visible or changes the order of what is, and cuts at a character boundary.
fn clean(raw: &str, limit: usize, fallback: &str) -> String {
    let mut kept = String::with_capacity(raw.len().min(limit));
    for character in raw.chars().filter(|character| !is_unsafe(*character)) {
        if kept.is_empty() && character.is_whitespace() {
            continue;
        }
        if kept.len() + character.len_utf8() > limit {
            break;
        }
        kept.push(character);
    }
    kept.truncate(kept.trim_end().len());
    if kept.is_empty() { fallback.to_owned() } else { kept }
}

/// Control characters, line and paragraph separators, and the invisible format characters: those of the
/// bidirectional algorithm (UAX #9), zero-width ones, and the byte order mark.
fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_would_break_a_line_is_removed_and_the_rest_stays() {
        assert_eq!(label("\"\n{}", "id"), "\"{}");
        assert_eq!(label("a\u{202e}b\u{200f}c\u{0}d", "id"), "abcd");
        assert_eq!(text(" Käse 🧀 ", "-"), "Käse 🧀");
        assert_eq!(
            text("\u{200b} blank behind what is removed\u{0} \u{0}", "-"),
            "blank behind what is removed"
        );
    }

    #[test]
    fn nothing_left_is_the_fallback() {
        assert_eq!(label("", "id"), "id");
        assert_eq!(label(" \u{200b}\r\n", "id"), "id");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(label(&"x".repeat(10_000), "-").len(), 63);
        assert_eq!(label(&"ä".repeat(10_000), "-"), "ä".repeat(31));
        assert_eq!(text(&"x".repeat(10_000), "-").len(), 256);
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        assert_eq!(label(&lossy(b"a\xff\xfeb"), "-"), "a\u{fffd}\u{fffd}b");
    }

    proptest! {
        #[test]
        fn any_text_comes_out_bounded_and_visible(raw in "\\PC{0,100}|.{0,100}") {
            let cleaned = label(&raw, "fallback");
            prop_assert!(!cleaned.is_empty() && cleaned.len() <= LABEL_BYTES);
            prop_assert!(!cleaned.chars().any(is_unsafe));
            prop_assert_eq!(label(&cleaned, "fallback"), cleaned);
        }
    }
}
