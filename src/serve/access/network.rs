//! From where callers may come: networks in CIDR notation.

use super::AccessError;
use ipnet::IpNet;
use std::net::IpAddr;

/// The most networks a list may name; each request is compared with all of them.
const NETWORKS_MAX: usize = 256;

/// Networks whose addresses are let in; an empty list lets everyone in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<IpNet>);

impl AllowList {
    /// Reads networks such as `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one.
    ///
    /// # Errors
    /// [`AccessError::Invalid`] naming the entry, for what is not a network or has bits beyond its prefix, and for more than 256.
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, AccessError> {
        if entries.len() > NETWORKS_MAX {
            let said = entries.len();
            return Err(AccessError::Invalid(format!("{said} allowed networks, expected at most {NETWORKS_MAX}")));
        }
        entries.iter().map(|entry| network(entry.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// Tells whether a caller at `address` is let in; an IPv4 address inside IPv6 counts as the IPv4 address.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.is_empty() || self.0.iter().any(|network| network.contains(&address))
    }
}

fn network(said: &str) -> Result<IpNet, AccessError> {
    let parsed = said.parse::<IpNet>().ok().or_else(|| said.parse::<IpAddr>().ok().map(IpNet::from));
    let Some(network) = parsed else {
        return Err(AccessError::Invalid(format!("{said} is not a network; write it as 10.0.0.0/8 or fd00::/8")));
    };
    if network.trunc() != network {
        let meant = network.trunc();
        return Err(AccessError::Invalid(format!("{said} has bits beyond its prefix; the network is {meant}")));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn allows(list: &[&str], address: &str) -> bool {
        AllowList::parse(list).unwrap().allows(address.parse().unwrap())
    }

    #[test]
    fn addresses_are_matched_by_prefix_in_their_own_family() {
        assert!(allows(&[], "203.0.113.9"));
        assert!(allows(&["10.0.0.0/8"], "10.255.1.2"));
        assert!(allows(&["10.0.0.0/8"], "::ffff:10.255.1.2"));
        assert!(!allows(&["10.0.0.0/8"], "11.0.0.1"));
        assert!(!allows(&["0.0.0.0/0"], "2001:db8::1"));
        assert!(allows(&["10.0.0.0/8", "2001:db8::/32"], "2001:db8::1"));
        assert!(allows(&["192.0.2.7"], "192.0.2.7") && !allows(&["192.0.2.7"], "192.0.2.8"));
    }

    #[test]
    fn what_is_not_a_network_is_refused_by_name() {
        for said in ["", "10.0.0.0/33", "example.org", "10.0.0.1/8", "10.0.0.0/8/8"] {
            let error = AllowList::parse(&[said]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
        assert!(AllowList::parse(&vec!["10.0.0.0/8"; 257]).is_err());
    }

    proptest! {
        #[test]
        fn a_network_lets_in_exactly_its_addresses(base: u32, prefix in 0u32..=32, address: u32) {
            let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
            let list = AllowList::parse(&[format!("{}/{prefix}", Ipv4Addr::from(base & mask))]).unwrap();
            prop_assert_eq!(list.allows(Ipv4Addr::from(address).into()), address & mask == base & mask);
        }
    }
}
