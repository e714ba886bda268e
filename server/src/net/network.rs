//! A range of addresses, as a configuration has it: `10.0.0.0/8`, `2001:db8::/32`, or one address.

use std::{fmt, net::IpAddr, str::FromStr};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// An IPv4 address that came by an IPv6 socket is one.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(_), IpAddr::V4(_)) | (IpAddr::V6(_), IpAddr::V6(_)) => {
                bits(address.to_canonical()) & self.mask() == bits(self.address)
            }
            _ => false,
        }
    }

    /// On the bits as `bits` has them.
    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let none = || "must be a network like 10.0.0.0/8 or 2001:db8::/32, or one address".to_owned();
        let address: IpAddr = address.parse().map_err(|_| none())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) if prefix.bytes().all(|byte| byte.is_ascii_digit()) => prefix.parse().map_err(|_| none())?,
            Some(_) => return Err(none()),
            None => most,
        };
        if prefix > most {
            return Err(format!("has a prefix of more than {most} bits"));
        }
        let network = Self { address, prefix };
        if bits(address) & !network.mask() != 0 {
            return Err(format!(
                "has an address with bits behind its prefix; is `{address}` alone meant?"
            ));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// From the highest one on.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_network_has_its_addresses_and_no_others() {
        let has = |network: &str, address: &str| {
            let network: Network = network.parse().expect("a network");
            network.contains(address.parse().expect("an address"))
        };
        assert!(has("10.0.0.0/8", "10.255.0.1"));
        assert!(has("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(!has("10.0.0.0/8", "11.0.0.1"));
        assert!(!has("10.0.0.0/8", "a00::1"));
        assert!(has("192.0.2.7", "192.0.2.7"));
        assert!(!has("192.0.2.7", "192.0.2.6"));
        assert!(has("0.0.0.0/0", "203.0.113.9"));
        assert!(!has("0.0.0.0/0", "2001:db8::1"));
        assert!(has("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!has("2001:db8::/32", "2001:db9::1"));
        assert!(has("::/0", "2001:db9::1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "::1/127",
            "::/129",
            "host/8",
            "10/8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text} was taken");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic_and_what_it_takes_it_writes(text in "[0-9a-f.:/]{0,30}|.{0,30}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
                prop_assert!(network.contains(network.address) || network.address != network.address.to_canonical());
            }
        }
    }
}
