//! The battery-backed clock of the PC (Motorola MC146818 and its heirs), read once at boot.

use x86_64::instructions::port::Port;

/// The clock's registers as they stand in CMOS memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Registers {
    second: u8,
    minute: u8,
    hour: u8,
    day: u8,
    month: u8,
    year: u8,
    /// Register B: bit 1 says 24-hour mode, bit 2 binary instead of BCD.
    format: u8,
}

fn cmos(register: u8) -> u8 {
    // SAFETY: the standard PC ports of CMOS memory; reading a clock register changes nothing. Bit 7 of the index keeps
    // NMIs enabled when clear.
    unsafe {
        Port::<u8>::new(0x70).write(register);
        Port::<u8>::new(0x71).read()
    }
}

fn snapshot() -> Registers {
    Registers {
        second: cmos(0x00),
        minute: cmos(0x02),
        hour: cmos(0x04),
        day: cmos(0x07),
        month: cmos(0x08),
        year: cmos(0x09),
        format: cmos(0x0b),
    }
}

/// The date and time in seconds since 1970-01-01T00:00:00Z, taking the clock to show UTC and a year from 2000 to 2099;
/// `None` when there is no clock or it shows no valid time.
///
/// Reads until two readings agree outside an update, so it takes at most about a second. Not for concurrent use: index and
/// data port are two accesses.
pub fn read() -> Option<u64> {
    // An update takes at most 1,984 us (data sheet); a poll of a port takes about a microsecond on PCs.
    for _ in 0..1_000_000u32 {
        if cmos(0x0a) & 0x80 != 0 {
            continue;
        }
        let first = snapshot();
        if cmos(0x0a) & 0x80 == 0 && first == snapshot() {
            return seconds(first);
        }
    }
    None
}

/// Seconds since 1970 of what the registers show, or `None` if that is no time.
fn seconds(registers: Registers) -> Option<u64> {
    let binary = registers.format & 0x04 != 0;
    let number = |value: u8| -> Option<u64> {
        if binary {
            return Some(u64::from(value));
        }
        let (tens, ones) = (value >> 4, value & 0x0f);
        (tens < 10 && ones < 10).then(|| u64::from(tens) * 10 + u64::from(ones))
    };
    let mut hour = number(registers.hour & 0x7f)?;
    if registers.format & 0x02 == 0 {
        // 12-hour mode: 12 is the hour before 1, bit 7 says afternoon.
        hour = hour % 12 + if registers.hour & 0x80 != 0 { 12 } else { 0 };
    }
    let (second, minute) = (number(registers.second)?, number(registers.minute)?);
    let (day, month, year) = (
        number(registers.day)?,
        number(registers.month)?,
        2000 + number(registers.year)?,
    );
    if second > 60
        || minute > 59
        || hour > 23
        || !(1..=31).contains(&day)
        || !(1..=12).contains(&month)
        || year > 2099
    {
        return None;
    }
    Some(((days_from_epoch(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar from then on (Howard Hinnant, "chrono-compatible low-level
/// date algorithms", `days_from_civil`).
fn days_from_epoch(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const BCD_24: Registers = Registers {
        second: 0x59,
        minute: 0x58,
        hour: 0x23,
        day: 0x29,
        month: 0x02,
        year: 0x24,
        format: 0x02,
    };

    #[test]
    fn reads_bcd_and_binary_alike() {
        // 2024-02-29T23:58:59Z
        assert_eq!(seconds(BCD_24), Some(1_709_251_139));
        let binary = Registers {
            second: 59,
            minute: 58,
            hour: 23,
            day: 29,
            month: 2,
            year: 24,
            format: 0x06,
        };
        assert_eq!(seconds(binary), Some(1_709_251_139));
    }

    #[test]
    fn reads_twelve_hour_clocks() {
        let at = |hour| {
            seconds(Registers {
                hour,
                format: 0x00,
                ..BCD_24
            })
            .map(|s| s / 3600 % 24)
        };
        assert_eq!(at(0x12), Some(0));
        assert_eq!(at(0x01), Some(1));
        assert_eq!(at(0x92), Some(12));
        assert_eq!(at(0x91), Some(23));
    }

    #[test]
    fn refuses_what_is_no_time() {
        assert_eq!(
            seconds(Registers {
                month: 0x13,
                ..BCD_24
            }),
            None
        );
        assert_eq!(seconds(Registers { day: 0, ..BCD_24 }), None);
        assert_eq!(
            seconds(Registers {
                second: 0x0a,
                ..BCD_24
            }),
            None
        );
        // An absent device reads as all ones.
        let absent = Registers {
            second: 0xff,
            minute: 0xff,
            hour: 0xff,
            day: 0xff,
            month: 0xff,
            year: 0xff,
            format: 0xff,
        };
        assert_eq!(seconds(absent), None);
    }

    #[test]
    fn counts_days() {
        assert_eq!(days_from_epoch(1970, 1, 1), 0);
        assert_eq!(days_from_epoch(2000, 3, 1), 11_017);
        assert_eq!(days_from_epoch(2099, 12, 31), 47_481);
    }
}
