//! How many connections an address has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The part of an address that one caller cannot change at will.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}

/// Addresses that are connected, each with how often. One that is not is forgotten, so there are never more
/// than connections.
pub(crate) struct Addresses {
    most: Option<usize>,
    counts: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection of an address, until it is dropped.
pub(crate) struct Place(Arc<Addresses>, IpAddr);

impl Addresses {
    pub(crate) fn new(most: Option<usize>) -> Self {
        Addresses { most, counts: Mutex::default() }
    }

    /// None when the address has as many as it may.
    pub(crate) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if self.most.is_some_and(|most| *count >= most) {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Place(Arc::clone(self), address))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(count) = counts.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn an_ipv6_caller_is_its_network() {
        let network = |text: &str| super::network(text.parse().expect("an address")).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(network("192.0.2.7"), "192.0.2.7");
    }

    #[test]
    fn an_address_has_so_many_places_and_is_forgotten_with_the_last() {
        let addresses = Arc::new(Addresses::new(Some(2)));
        let (ours, theirs) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::BROADCAST));
        let held = [addresses.take(ours), addresses.take(ours)];
        assert!(held.iter().all(Option::is_some) && addresses.take(ours).is_none() && addresses.take(theirs).is_some());
        drop(held);
        assert!(addresses.counts().is_empty());
        assert!(addresses.take(ours).is_some());
    }
}
