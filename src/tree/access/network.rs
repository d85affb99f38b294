//! Addresses of the ip scheme (`IPAuthenticationProvider`; IPv6 as of 3.9.4).

/// The `addr` or `addr/bits` of an ip entry: addresses whose first `bits` bits are those of `address`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    address: Address,
    bits: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    V4(u32),
    V6(u128),
}

impl Network {
    pub fn parse(text: &str) -> Option<Network> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(parse_int(bits)?)),
        };
        let address = Address::parse(address)?;
        let bits_max = match address {
            Address::V4(_) => 32,
            Address::V6(_) => 128,
        };
        let bits = bits.unwrap_or(bits_max);
        (0..=bits_max).contains(&bits).then_some(Network { address, bits: bits as u32 })
    }

    /// Whether the textual address of a connection lies in it. A zone suffix makes it no address.
    pub fn contains(&self, text: &str) -> bool {
        match (self.address, Address::parse(text)) {
            (Address::V4(own), Some(Address::V4(other))) => (own ^ other).leading_zeros() >= self.bits,
            (Address::V6(own), Some(Address::V6(other))) => (own ^ other).leading_zeros() >= self.bits,
            _ => false,
        }
    }
}

impl Address {
    pub fn parse(text: &str) -> Option<Address> {
        if text.contains(':') { parse_v6(text).map(Address::V6) } else { parse_v4(text).map(Address::V4) }
    }
}

fn parse_v4(text: &str) -> Option<u32> {
    let mut parts = text.split('.');
    let mut address = 0;
    for _ in 0..4 {
        let part = parse_int(parts.next()?).filter(|part| (0..=255).contains(part))?;
        address = address << 8 | part as u32;
    }
    parts.next().is_none().then_some(address)
}

/// Groups of one to four hex digits; one `::` may stand for at least one group; no embedded IPv4.
fn parse_v6(text: &str) -> Option<u128> {
    let (head, tail) = match text.split_once("::") {
        None => (text, None),
        Some((head, tail)) => (head, Some(tail)),
    };
    let (head_bits, head_groups) = parse_groups(head)?;
    let Some(tail) = tail else { return (head_groups == 8).then_some(head_bits) };
    let (tail_bits, tail_groups) = parse_groups(tail)?;
    let missing = 8_u32.checked_sub(head_groups + tail_groups).filter(|missing| *missing > 0)?;
    // Without groups before the `::` the shift would be by all 128 bits.
    let head_bits = head_bits.checked_shl(16 * (missing + tail_groups)).unwrap_or(0);
    Some(head_bits | tail_bits)
}

/// The groups, right-aligned, and how many there are. Nothing at all is no group.
fn parse_groups(text: &str) -> Option<(u128, u32)> {
    if text.is_empty() {
        return Some((0, 0));
    }
    let (mut bits, mut groups) = (0, 0);
    for group in text.split(':') {
        let is_hex = (1..=4).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_hex || groups == 8 {
            return None;
        }
        bits = bits << 16 | u128::from_str_radix(group, 16).ok()?;
        groups += 1;
    }
    Some((bits, groups))
}

/// `Integer.parseInt` for ASCII digits: a sign and leading zeros are fine.
fn parse_int(text: &str) -> Option<i32> {
    text.parse().ok()
}
