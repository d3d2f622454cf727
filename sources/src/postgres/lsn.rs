//! Places in PostgreSQL's log.

use std::fmt;
use std::str::FromStr;

/// A place in the log: bytes since its beginning. Written as PostgreSQL does, `16/B374D848`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Lsn(pub(crate) u64);

impl fmt::Display for Lsn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// The text was no place in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a place in a PostgreSQL log")]
pub(crate) struct NoLsn;

impl FromStr for Lsn {
    type Err = NoLsn;

    fn from_str(text: &str) -> Result<Lsn, NoLsn> {
        let (high, low) = text.split_once('/').ok_or(NoLsn)?;
        let part = |digits: &str| u32::from_str_radix(digits, 16).map_err(|_| NoLsn);
        Ok(Lsn(u64::from(part(high)?) << 32 | u64::from(part(low)?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_place_is_written_and_read_as_postgresql_does() {
        assert_eq!("16/B374D848".parse::<Lsn>().unwrap().0, 0x16_b374_d848);
        assert_eq!(Lsn(0x16_0000_0001).to_string(), "16/1");
        assert_eq!("16".parse::<Lsn>(), Err(NoLsn));
        assert_eq!("x/1".parse::<Lsn>(), Err(NoLsn));
    }
}
