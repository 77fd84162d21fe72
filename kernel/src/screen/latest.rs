//! The most recent bytes of a stream: what comes in beyond the room drives out the oldest.

use alloc::vec::Vec;

/// See the module.
#[derive(Debug)]
pub(super) struct Latest {
    /// As many as there is room for.
    bytes: Vec<u8>,
    start: usize,
    length: usize,
    lost: bool,
}

impl Latest {
    /// Room for `capacity` bytes, at least one; `None` without memory for it.
    pub(super) fn new(capacity: usize) -> Option<Self> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(capacity.max(1)).ok()?;
        bytes.resize(capacity.max(1), 0);
        Some(Self {
            bytes,
            start: 0,
            length: 0,
            lost: false,
        })
    }

    /// Adds bytes; copies no more than there is room for.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let capacity = self.bytes.len();
        let kept = &bytes[bytes.len().saturating_sub(capacity)..];
        let overflow = (self.length + bytes.len()).saturating_sub(capacity);
        if overflow > 0 {
            self.lost = true;
            let dropped = overflow.min(self.length);
            self.start = (self.start + dropped) % capacity;
            self.length -= dropped;
        }
        let at = (self.start + self.length) % capacity;
        let first = kept.len().min(capacity - at);
        self.bytes[at..at + first].copy_from_slice(&kept[..first]);
        self.bytes[..kept.len() - first].copy_from_slice(&kept[first..]);
        self.length += kept.len();
    }

    /// Moves everything to the end of `to`, as far as that has room without growing. Says whether anything was lost before it.
    pub(super) fn take(&mut self, to: &mut Vec<u8>) -> bool {
        let count = self.length.min(to.capacity() - to.len());
        let first = count.min(self.bytes.len() - self.start);
        to.extend_from_slice(&self.bytes[self.start..self.start + first]);
        to.extend_from_slice(&self.bytes[..count - first]);
        self.start = (self.start + count) % self.bytes.len();
        self.length -= count;
        core::mem::take(&mut self.lost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_latest() {
        let mut latest = Latest::new(4).unwrap();
        let mut taken = Vec::with_capacity(8);
        latest.push(b"ab");
        latest.push(b"c");
        assert!(!latest.take(&mut taken));
        assert_eq!(taken, b"abc");
        taken.clear();
        latest.push(b"1234");
        latest.push(b"56");
        assert!(latest.take(&mut taken));
        assert_eq!(taken, b"3456");
        taken.clear();
        latest.push(b"x");
        latest.push(b"0123456789");
        assert_eq!(latest.length, 4);
        assert!(latest.take(&mut taken));
        assert_eq!(taken, b"6789");
        assert!(!latest.take(&mut taken));
        assert_eq!(latest.length, 0);
    }

    #[test]
    fn gives_no_more_than_fits() {
        let mut latest = Latest::new(4).unwrap();
        latest.push(b"abc");
        let mut taken = Vec::with_capacity(2);
        latest.take(&mut taken);
        assert_eq!(taken, b"ab");
        taken.clear();
        latest.push(b"def");
        assert!(!latest.take(&mut taken));
        assert_eq!(taken, b"cd");
        taken.clear();
        latest.take(&mut taken);
        assert_eq!(taken, b"ef");
    }
}
