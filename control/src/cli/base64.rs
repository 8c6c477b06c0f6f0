//! Base64 as Secrets have it: the standard alphabet, padded.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes bytes as text.
pub fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            if digit > chunk.len() {
                out.push('=');
            } else {
                let index = bits >> (18 - 6 * digit) & 63;
                out.push(char::from(ALPHABET[index as usize]));
            }
        }
    }
    out
}

/// Reads text; line ends are left out, as Go's decoder does.
pub fn decode(text: &str) -> Result<Vec<u8>, String> {
    let digits: Vec<(usize, u8)> = text
        .bytes()
        .enumerate()
        .filter(|(_, byte)| !matches!(byte, b'\r' | b'\n'))
        .collect();
    let illegal = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let padding = digits
        .iter()
        .rev()
        .take_while(|(_, byte)| *byte == b'=')
        .count();
    let filled = &digits[..digits.len() - padding];
    if !digits.len().is_multiple_of(4) || padding > 2 {
        return illegal(text.len());
    }
    let mut out = Vec::with_capacity(filled.len() / 4 * 3 + 2);
    for chunk in filled.chunks(4) {
        let mut bits = 0_u32;
        for (at, byte) in chunk {
            match ALPHABET.iter().position(|own| own == byte) {
                Some(value) => bits = bits << 6 | value as u32,
                None => return illegal(*at),
            }
        }
        bits <<= 6 * (4 - chunk.len());
        out.extend(&bits.to_be_bytes()[1..chunk.len()]);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_standard() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, written) in cases {
            assert_eq!(encode(plain.as_bytes()), written);
            assert_eq!(decode(written).unwrap(), plain.as_bytes());
        }
        let every: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&every)).unwrap(), every);
    }

    #[test]
    fn what_is_none_is_refused() {
        assert_eq!(
            decode("Zg=").unwrap_err(),
            "illegal base64 data at input byte 3"
        );
        assert_eq!(
            decode("Z*==").unwrap_err(),
            "illegal base64 data at input byte 1"
        );
        assert_eq!(decode("Zm9v\nZm9v").unwrap(), b"foofoo");
    }
}
