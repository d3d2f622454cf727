//! The 64-bit hash by which PostgreSQL 11 and later sum bytes up: `hashtextextended(text, 0)`. It is Bob Jenkins'
//! `lookup3` (2006, public domain), read in little-endian words, started as PostgreSQL starts it and without a seed. The
//! function's values are part of what hash partitioning stores, so they stay the same between versions.

/// The start value, and what PostgreSQL adds to it.
const START: u32 = 0x9e37_79b9;
const ADDED: u32 = 3_923_095;

/// The sum of these bytes.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    // Texts are below 1 GiB.
    let start = START.wrapping_add(bytes.len() as u32).wrapping_add(ADDED);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut blocks = bytes.chunks_exact(12);
    for block in &mut blocks {
        a = a.wrapping_add(word(&block[..4]));
        b = b.wrapping_add(word(&block[4..8]));
        c = c.wrapping_add(word(&block[8..]));
        (a, b, c) = mix(a, b, c);
    }
    let rest = blocks.remainder();
    let part = |from: usize, to: usize| word(rest.get(from..to.min(rest.len())).unwrap_or_default());
    a = a.wrapping_add(part(0, 4));
    b = b.wrapping_add(part(4, 8));
    // The lowest byte is the length's.
    c = c.wrapping_add(part(8, 11) << 8);
    let (b, c) = finish(a, b, c);
    u64::from(b) << 32 | u64::from(c)
}

/// Up to four bytes, the lowest first.
fn word(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte))
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn finish(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32) {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    c = (c ^ b).wrapping_sub(b.rotate_left(24));
    (b, c)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Told by PostgreSQL 15: `SELECT hashtextextended(…, 0)`.
    #[test]
    fn sums_are_those_of_real_servers() {
        const FOX: &str = "The quick brown fox jumps over the lazy dog";
        for (length, sum) in [
            (0, -6_939_563_903_564_495_251_i64),
            (1, -1_338_225_982_912_146_468),
            (2, 5_593_687_159_563_776_749),
            (3, -7_897_229_297_791_927_534),
            (4, 1_214_481_609_633_084_541),
            (5, -985_326_184_270_896_746),
            (7, -2_752_675_330_521_770_124),
            (8, -1_544_529_330_263_215_465),
            (9, -3_165_377_590_426_475_634),
            (10, 6_613_948_839_295_992_241),
            (11, 2_869_438_648_668_390_509),
            (12, -9_210_305_663_925_663_560),
            (13, -3_863_872_140_344_080_773),
            (23, -6_349_138_520_123_274_615),
            (24, 8_360_766_130_984_247_540),
            (25, -6_568_008_242_738_964_476),
            (43, 2_182_139_051_089_226_439),
        ] {
            assert_eq!(hash(&FOX.as_bytes()[..length]).cast_signed(), sum, "{length} bytes");
        }
        assert_eq!(hash("0123456789".repeat(1_000).as_bytes()).cast_signed(), -7_657_008_646_164_980_412);
    }
}
