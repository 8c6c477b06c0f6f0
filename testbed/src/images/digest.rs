//! SHA-1 and SHA-256 (FIPS 180-4), for log-ins and entity tags: nothing here keeps a secret from
//! anybody. And base64 (RFC 4648, section 4).

/// The message in blocks of 64 bytes, padded.
fn blocks(message: &[u8]) -> Vec<[u8; 64]> {
    let mut bytes = message.to_vec();
    bytes.push(0x80);
    while bytes.len() % 64 != 56 {
        bytes.push(0);
    }
    bytes.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let (blocks, _) = bytes.as_chunks::<64>();
    blocks.to_vec()
}

fn words(block: &[u8; 64]) -> impl Iterator<Item = u32> + '_ {
    block
        .as_chunks::<4>()
        .0
        .iter()
        .map(|word| u32::from_be_bytes(*word))
}

/// SHA-1.
pub fn sha1(message: &[u8]) -> [u8; 20] {
    let mut state = [
        0x6745_2301_u32,
        0xefcd_ab89,
        0x98ba_dcfe,
        0x1032_5476,
        0xc3d2_e1f0,
    ];
    for block in blocks(message) {
        let mut w = [0_u32; 80];
        for (slot, word) in w.iter_mut().zip(words(&block)) {
            *slot = word;
        }
        for t in 16..80 {
            w[t] = (w[t - 3] ^ w[t - 8] ^ w[t - 14] ^ w[t - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (t, word) in w.iter().enumerate() {
            let (f, k) = match t / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let sum = a.rotate_left(5).wrapping_add(f).wrapping_add(e);
            let sum = sum.wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, sum);
        }
        for (slot, word) in state.iter_mut().zip([a, b, c, d, e]) {
            *slot = slot.wrapping_add(word);
        }
    }
    let mut digest = [0; 20];
    for (slot, word) in digest.chunks_mut(4).zip(state) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// The first 32 bits of the fractional parts of the roots of the first primes.
const fn fraction_of_root(prime: u64, cube: bool) -> u32 {
    // The greatest r with (r / 2^32)^2 or ^3 below the prime, by bits.
    let (mut root, mut bit) = (0_u128, 1_u128 << 36);
    while bit > 0 {
        let next = root | bit;
        let fits = if cube {
            next * next * next <= (prime as u128) << 96
        } else {
            next * next <= (prime as u128) << 64
        };
        if fits {
            root = next;
        }
        bit >>= 1;
    }
    root as u32
}

const PRIMES: [u64; 64] = {
    let (mut found, mut count, mut number) = ([0; 64], 0, 2);
    while count < 64 {
        let (mut divisor, mut prime) = (2, true);
        while divisor * divisor <= number {
            if number % divisor == 0 {
                prime = false;
            }
            divisor += 1;
        }
        if prime {
            found[count] = number;
            count += 1;
        }
        number += 1;
    }
    found
};

const ROUNDS: [u32; 64] = {
    let (mut all, mut at) = ([0; 64], 0);
    while at < 64 {
        all[at] = fraction_of_root(PRIMES[at], true);
        at += 1;
    }
    all
};

/// SHA-256.
pub fn sha256(message: &[u8]) -> [u8; 32] {
    let mut state: [u32; 8] = std::array::from_fn(|at| fraction_of_root(PRIMES[at], false));
    for block in blocks(message) {
        let mut w = [0_u32; 64];
        for (slot, word) in w.iter_mut().zip(words(&block)) {
            *slot = word;
        }
        for t in 16..64 {
            let (x, y) = (w[t - 15], w[t - 2]);
            let small0 = x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3);
            let small1 = y.rotate_right(17) ^ y.rotate_right(19) ^ (y >> 10);
            w[t] = w[t - 16]
                .wrapping_add(small0)
                .wrapping_add(w[t - 7])
                .wrapping_add(small1);
        }
        let mut s = state;
        for (word, round) in w.iter().zip(ROUNDS) {
            let [a, b, c, d, e, f, g, h] = s;
            let big1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let choose = (e & f) ^ (!e & g);
            let one = h.wrapping_add(big1).wrapping_add(choose);
            let one = one.wrapping_add(round).wrapping_add(*word);
            let big0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let majority = (a & b) ^ (a & c) ^ (b & c);
            let two = big0.wrapping_add(majority);
            s = [one.wrapping_add(two), a, b, c, d.wrapping_add(one), e, f, g];
        }
        for (slot, word) in state.iter_mut().zip(s) {
            *slot = slot.wrapping_add(word);
        }
    }
    let mut digest = [0; 32];
    for (slot, word) in digest.chunks_mut(4).zip(state) {
        slot.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

/// Bytes as base64, without padding.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..=chunk.len() {
            let index = bits >> (18 - 6 * place) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_standards_examples() {
        let long = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        for (message, one, two) in [
            (
                &b"abc"[..],
                "a9993e364706816aba3e25717850c26c9cd0d89d",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                b"",
                "da39a3ee5e6b4b0d3255bfef95601890afd80709",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                long,
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(hex(&sha1(message)), one);
            assert_eq!(hex(&sha256(message)), two);
        }
    }

    #[test]
    fn base64_without_padding() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg"),
            ("fo", "Zm8"),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg"),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
