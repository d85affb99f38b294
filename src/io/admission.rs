//! Who may connect: limits over all shards, looked at when a socket is accepted.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::AHashMap;

/// Connections per address and in all. Shared by the cores; touched only when a connection comes or goes.
#[derive(Debug)]
pub struct Admission {
    /// `maxClientCnxns`, 0 for no limit.
    per_address_max: u32,
    /// `maxCnxns`, 0 for no limit.
    total_max: u32,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    by_address: AHashMap<IpAddr, u32>,
    total: u32,
}

/// One connection's place; given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    address: IpAddr,
}

/// Which limit was reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turned {
    TooManyFromAddress(u32),
    TooMany(u32),
}

impl Admission {
    pub fn new(per_address_max: u32, total_max: u32) -> Arc<Admission> {
        Arc::new(Admission { per_address_max, total_max, counts: Mutex::default() })
    }

    pub fn admit(self: &Arc<Admission>, address: IpAddr) -> Result<Place, Turned> {
        // A listener for both families shows IPv4 clients with mapped addresses.
        let address = address.to_canonical();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if self.total_max > 0 && counts.total >= self.total_max {
            return Err(Turned::TooMany(self.total_max));
        }
        let from_address = counts.by_address.entry(address).or_default();
        if self.per_address_max > 0 && *from_address >= self.per_address_max {
            return Err(Turned::TooManyFromAddress(self.per_address_max));
        }
        *from_address += 1;
        counts.total += 1;
        Ok(Place { admission: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.admission.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.total -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_apart_and_places_are_given_back() {
        let admission = Admission::new(2, 3);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = admission.admit(a).unwrap();
        let _second = admission.admit(a).unwrap();
        assert_eq!(admission.admit(a).err(), Some(Turned::TooManyFromAddress(2)));
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(admission.admit(mapped).err(), Some(Turned::TooManyFromAddress(2)), "the same address");
        let _third = admission.admit(b).unwrap();
        assert_eq!(admission.admit(b).err(), Some(Turned::TooMany(3)));
        drop(first);
        assert!(admission.admit(a).is_ok());
    }
}
