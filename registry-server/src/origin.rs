//! Who makes a change and why, as the journal has it: text that was said by somebody else, so it is bounded and cannot command
//! the terminal on which it is shown.

use crate::peer::Peer;

/// The longest author, in characters.
pub(crate) const MAX_AUTHOR: usize = 256;
/// The longest reason, in characters.
pub(crate) const MAX_REASON: usize = 1024;

/// The author of a call that came to the server: who calls, if that is known, the address of the client, or of the proxy before it,
/// and what the client says that it is. A header that names another address is not looked at, since anybody can send one.
pub(crate) fn of_call(user: Option<&str>, peer: Option<Peer>, user_agent: Option<&[u8]>) -> Option<String> {
    let user = user.and_then(|user| cleaned(user.as_bytes(), MAX_AUTHOR)).map(|user| {
        // Or a name could be one with another address behind it.
        if user.contains(char::is_whitespace) { format!("{user:?}") } else { user }
    });
    let peer = peer.map(|peer| peer.to_string());
    let agent = user_agent.and_then(|agent| cleaned(agent, MAX_AUTHOR));
    let parts: Vec<String> = [user, peer, agent].into_iter().flatten().collect();
    cleaned(parts.join(" ").as_bytes(), MAX_AUTHOR)
}

/// Text of one line without characters that command a terminal or that show others in another order, of at most so many
/// characters; `None` if nothing is left.
pub(crate) fn cleaned(text: &[u8], most: usize) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let clean: String = text.chars().map(|c| if is_unsafe(c) { ' ' } else { c }).collect();
    let clean = clean.trim();
    let clean = match clean.char_indices().nth(most.saturating_sub(1)) {
        // The last of so many characters says that there were more.
        Some((end, last)) if end + last.len_utf8() < clean.len() => format!("{}…", clean[..end].trim_end()),
        _ => clean.to_owned(),
    };
    (!clean.is_empty()).then_some(clean)
}

/// Control characters, those that show the characters around them in another order, and those that are not to be seen, with which
/// two names look the same.
pub(crate) fn is_unsafe(c: char) -> bool {
    let reorders = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let is_hidden = matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    c.is_control() || reorders || is_hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_author_is_an_address_and_what_the_client_says_that_it_is() {
        let peer = |text: &str| Some(Peer::Address(text.parse().expect("an address")));
        for (user, peer, agent, author) in [
            (None, peer("10.0.0.7"), Some(&b"grpc-python/1.85.0"[..]), Some("10.0.0.7 grpc-python/1.85.0")),
            (Some("ann"), peer("10.0.0.7"), Some(b"grpc-python"), Some("ann 10.0.0.7 grpc-python")),
            (Some("ann\nroot"), None, None, Some("\"ann root\"")),
            (Some("ann 10.0.0.7"), peer("10.0.0.8"), None, Some("\"ann 10.0.0.7\" 10.0.0.8")),
            (None, peer("::ffff:10.0.0.7"), Some(b" \n "), Some("10.0.0.7")),
            (None, peer("fe80::1"), None, Some("fe80::1")),
            (None, Some(Peer::User(1000)), Some(b"grpc-python"), Some("uid:1000 grpc-python")),
            (None, None, Some(b"grpc-go/1.70"), Some("grpc-go/1.70")),
            (None, None, None, None),
        ] {
            assert_eq!(of_call(user, peer, agent).as_deref(), author);
        }
    }

    #[test]
    fn text_is_one_line_and_bounded_and_commands_no_terminal() {
        let cleaned = |text: &str, most| cleaned(text.as_bytes(), most);
        assert_eq!(cleaned("a\nb\x1b[31mred\u{202e}", 100).as_deref(), Some("a b [31mred"));
        assert_eq!(cleaned("a\u{61c}b\u{200b}c\u{2064}d\u{feff}", 100).as_deref(), Some("a b c d"));
        assert_eq!(cleaned("fahrer ü 🚗", 100).as_deref(), Some("fahrer ü 🚗"));
        assert_eq!(cleaned("üüüü", 4).as_deref(), Some("üüüü"));
        assert_eq!(cleaned("üüüüü", 4).as_deref(), Some("üüü…"));
        assert_eq!(cleaned(" \u{7}", 4), None);
        assert_eq!(super::cleaned(b"\xff\xfe", 4).as_deref(), Some("\u{fffd}\u{fffd}"));
        let author = of_call(None, Some(Peer::User(1000)), Some(&[b'x'; 10_000])).expect("an author");
        assert_eq!(author.chars().count(), MAX_AUTHOR);
    }
}
