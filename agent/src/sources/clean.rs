//! Making strings from outside fit to be shown, logged and used as label values.

use std::borrow::Cow;

/// Longest name label (RFC 1035, 2.3.4), in bytes.
const LABEL_BYTES: usize = 63;
/// Longest other text, in bytes.
const TEXT_BYTES: usize = 256;
/// Longest path (`PATH_MAX` in include/uapi/linux/limits.h), in bytes.
const PATH_BYTES: usize = 4096;

/// A name of one label: at most 63 bytes; `fallback` when nothing is left.
pub(crate) fn label(raw: &str, fallback: &str) -> String {
    clean(raw, LABEL_BYTES, fallback)
}

/// Any other text: at most 256 bytes; `fallback` when nothing is left.
pub(crate) fn text(raw: &str, fallback: &str) -> String {
    clean(raw, TEXT_BYTES, fallback)
}

/// Puts a text of at most a path's length into `place`, whose memory is used again; nothing when nothing is left.
pub(crate) fn refill(place: &mut String, raw: &str) {
    place.clear();
    let plain = raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) && raw.trim_ascii() == raw;
    if plain && raw.len() <= PATH_BYTES {
        place.push_str(raw);
    } else {
        place.push_str(&clean(raw, PATH_BYTES, ""));
    }
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

    #[test]
    fn what_is_refilled_is_cleaned_and_keeps_nothing() {
        let mut place = "before".to_owned();
        refill(&mut place, "/mnt/ü \u{202e}x");
        assert_eq!(place, "/mnt/ü x");
        refill(&mut place, " plain ");
        assert_eq!(place, "plain");
        refill(&mut place, &"x".repeat(5000));
        assert_eq!(place.len(), PATH_BYTES);
        refill(&mut place, "");
        assert_eq!(place, "");
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
