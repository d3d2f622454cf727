//! Addresses that a configuration names.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses: `10.0.0.5`, `10.0.0.0/8`, `fd00::/8`, or `localhost` for loopback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Every address that leads to this machine only.
    Loopback,
    /// Those that begin with these bits.
    Prefix(IpAddr, u8),
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("addresses like 10.0.0.5, ranges like 10.0.0.0/8 or fd00::/8, or localhost")]
pub struct InvalidNetwork;

impl Network {
    /// Whether an address is in it.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        match self {
            Self::Loopback => address.is_loopback(),
            Self::Prefix(start, bits) => match (start, address) {
                (IpAddr::V4(start), IpAddr::V4(address)) => {
                    same(u128::from(start.to_bits()) << 96, u128::from(address.to_bits()) << 96, *bits)
                }
                (IpAddr::V6(start), IpAddr::V6(address)) => same(start.to_bits(), address.to_bits(), *bits),
                _ => false,
            },
        }
    }
}

/// Whether two numbers begin with the same bits.
fn same(a: u128, b: u128, bits: u8) -> bool {
    let rest = 128 - u32::from(bits);
    (a ^ b).checked_shr(rest).unwrap_or(0) == 0
}

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        if text.eq_ignore_ascii_case("localhost") {
            return Ok(Self::Loopback);
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(|_| InvalidNetwork)?.to_canonical();
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), str::parse).map_err(|_| InvalidNetwork)?;
        if bits <= all { Ok(Self::Prefix(address, bits)) } else { Err(InvalidNetwork) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback => f.write_str("localhost"),
            Self::Prefix(address, bits) => write!(f, "{address}/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_network_holds_what_begins_as_it_does() {
        for (network, inside, outside) in [
            ("10.0.0.5", "10.0.0.5", "10.0.0.6"),
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("192.168.4.0/22", "192.168.7.255", "192.168.8.0"),
            ("fd00::/8", "fdab::1", "fe00::1"),
            ("localhost", "127.9.9.9", "10.0.0.1"),
            ("localhost", "::1", "::2"),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::a00:1"),
            ("0.0.0.0/0", "8.8.8.8", "::1"),
            ("::/0", "fe80::1", "1.1.1.1"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.holds(inside.parse().unwrap()), "{network} {inside}");
            assert!(!network.holds(outside.parse().unwrap()), "{network} {outside}");
        }
        for text in ["", "10.0.0", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/-1", "db.internal", "*"] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }
}
