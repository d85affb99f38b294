//! What the first four bytes of a connection to the client port say.

use super::four_letter::{Whitelist, Word};

/// Every client begins with four bytes; nearly always they are the length of its connect request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Opening {
    /// Take the bytes as the length of a connect request. An unknown word ends here too, and as an absurd length.
    Length(i32),
    /// Answer with `four_letter::answer` and close. Whatever follows is ignored, but for the argument of `stmk`.
    Word(Word),
    /// A word that the whitelist does not have: answer with `four_letter::refusal` and close.
    Refused(Word),
    /// Telnet's interrupt: close without a byte, as ZooKeeper does.
    TelnetInterrupt,
    /// Answer with `http_hint::RESPONSE` and close.
    Http,
    /// Someone speaks TLS to the plain port: nothing that we could say would be understood, so log it and close.
    Tls,
}

const TELNET_INTERRUPT: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

/// First bytes of HTTP/1 requests, and of HTTP/2's preface. As lengths they are beyond a gigabyte.
const HTTP_METHODS: [&[u8; 4]; 10] =
    [b"GET ", b"HEAD", b"POST", b"PUT ", b"DELE", b"OPTI", b"PATC", b"TRAC", b"CONN", b"PRI "];

const _: () = {
    let mut i = 0;
    while i < HTTP_METHODS.len() {
        // No frame is that long, so no client is mistaken for a browser.
        assert!(i32::from_be_bytes(*HTTP_METHODS[i]) > 1 << 30);
        i += 1;
    }
};

pub fn recognise(first: [u8; 4], whitelist: &Whitelist) -> Opening {
    if let Some(word) = Word::parse(first) {
        return if whitelist.allows(word) { Opening::Word(word) } else { Opening::Refused(word) };
    }
    match first {
        TELNET_INTERRUPT => Opening::TelnetInterrupt,
        // A handshake record of SSL 3.0 to TLS 1.3, longer than nothing: as a length, 369 MB.
        [0x16, 0x03, 0..=4, _] => Opening::Tls,
        bytes if HTTP_METHODS.contains(&&bytes) => Opening::Http,
        bytes => Opening::Length(i32::from_be_bytes(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first: &[u8; 4], expected: Opening) {
        assert_eq!(recognise(*first, &Whitelist::parse("ruok", false)), expected, "{first:?}");
    }

    #[test]
    fn four_bytes_tell_words_lengths_and_strangers_apart() {
        check(b"ruok", Opening::Word(Word::Ruok));
        check(b"srvr", Opening::Word(Word::Srvr));
        check(b"mntr", Opening::Refused(Word::Mntr));
        check(b"\0\0\0\x2d", Opening::Length(45));
        check(b"lead", Opening::Length(0x6c65_6164));
        check(b"RUOK", Opening::Length(0x5255_4f4b));
        check(b"\xff\xff\xff\xff", Opening::Length(-1));
        check(b"\xff\xf4\xff\xfd", Opening::TelnetInterrupt);
        check(b"GET ", Opening::Http);
        check(b"PRI ", Opening::Http);
        check(b"\x16\x03\x01\x02", Opening::Tls);
        check(b"\x00\x16\x03\x01", Opening::Length(0x16_0301));
    }
}
