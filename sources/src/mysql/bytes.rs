//! Reading the bytes of events: little-endian numbers, counted strings; an end where none belongs is an error.

/// Bytes that ended too early, or that mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the event's bytes do not have the documented form ({0})")]
pub(super) struct Malformed(pub(super) &'static str);

/// The rest of an event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends too early"))?;
        self.0 = rest;
        Ok(*taken)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A little-endian number of up to eight bytes.
    #[inline]
    pub(super) fn uint(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let mut whole = [0; 8];
        whole.get_mut(..bytes).ok_or(Malformed("a number is too long"))?.copy_from_slice(self.take(bytes)?);
        Ok(u64::from_le_bytes(whole))
    }

    /// A big-endian number of up to eight bytes.
    #[inline]
    pub(super) fn uint_be(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let taken = self.take(bytes)?;
        if bytes > 8 {
            return Err(Malformed("a number is too long"));
        }
        Ok(taken.iter().fold(0, |sum, &byte| sum << 8 | u64::from(byte)))
    }

    /// A length-encoded number of the protocol.
    pub(super) fn packed(&mut self) -> Result<usize, Malformed> {
        let number = match self.u8()? {
            short @ 0..=250 => u64::from(short),
            252 => self.uint(2)?,
            253 => self.uint(3)?,
            254 => self.u64()?,
            _ => return Err(Malformed("a length")),
        };
        usize::try_from(number).map_err(|_| Malformed("a length"))
    }

    /// A number of MySQL's serialization library: the ones at the low end of the first byte count the bytes that follow
    /// it, and the other bits, the lowest first, are the number. (`libs/mysql/serialization/readme.md`.)
    pub(super) fn varlen(&mut self) -> Result<u64, Malformed> {
        let first = self.u8()?;
        let more = first.trailing_ones();
        let rest = self.uint(more as usize)?;
        let low = u64::from(first).checked_shr(more + 1).unwrap_or(0);
        // With eight bytes more nothing is left in the first, and their 64 bits are the number.
        Ok(low | rest << 7_u32.saturating_sub(more))
    }

    /// Bytes after their own length.
    pub(super) fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.packed()?;
        self.take(length)
    }
}

/// The bit of a bitmap whose lowest bit comes first.
#[inline]
pub(super) fn bit(map: &[u8], at: usize) -> bool {
    map.get(at / 8).is_some_and(|byte| byte & (1 << (at % 8)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_serialization_library_say_how_long_they_are() {
        // The examples of its documentation, and the borders.
        for (bytes, number) in [
            (&[0][..], 0),
            (&[0xfe], 127),
            (&[0x01, 0x02], 128),
            (&[0xfb, 0xff, 0x07], 65_535),
            (&[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], (1 << 56) - 1),
            (&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], u64::MAX),
        ] {
            assert_eq!(Bytes(bytes).varlen(), Ok(number), "{bytes:x?}");
            assert!(Bytes(&bytes[..bytes.len() - 1]).varlen().is_err());
        }
    }
}
