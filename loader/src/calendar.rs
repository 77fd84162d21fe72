//! What the CMOS real-time clock says, as Unix time (Motorola MC146818 data sheet; century byte as in ACPI's FADT).

/// The clock's registers, as read while no update was in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockRegisters {
    /// Register 0x00.
    pub second: u8,
    /// Register 0x02.
    pub minute: u8,
    /// Register 0x04; bit 7 is "afternoon" in the 12-hour format.
    pub hour: u8,
    /// Register 0x07.
    pub day: u8,
    /// Register 0x08.
    pub month: u8,
    /// Register 0x09.
    pub year: u8,
    /// Register 0x32, the century on PCs; nonsense where there is none.
    pub century: u8,
    /// Register 0x0B: bit 1 = 24 hours, bit 2 = binary and not BCD.
    pub format: u8,
}

/// Seconds since 1970-01-01 00:00:00 for a clock that runs in UTC; `None` if the registers hold no date.
pub fn unix_time(clock: &ClockRegisters) -> Option<i64> {
    let binary = clock.format & 0x04 != 0;
    let number = |value: u8| -> Option<i64> {
        if binary {
            return Some(i64::from(value));
        }
        (value & 0x0f < 10 && value >> 4 < 10)
            .then(|| i64::from((value >> 4) * 10 + (value & 0x0f)))
    };
    let afternoon = clock.hour & 0x80 != 0;
    let mut hour = number(clock.hour & 0x7f)?;
    if clock.format & 0x02 == 0 {
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let century = number(clock.century)
        .filter(|century| (19..=29).contains(century))
        .unwrap_or(20);
    let year = century * 100 + number(clock.year)?;
    let (month, day) = (number(clock.month)?, number(clock.day)?);
    let (minute, second) = (number(clock.minute)?, number(clock.second)?);
    let sound = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second < 61;
    sound.then(|| ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar. Years are counted from March, so that the leap day is the
/// last of its year and the months' lengths follow one linear formula.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: ClockRegisters = ClockRegisters {
        second: 0,
        minute: 0,
        hour: 0,
        day: 1,
        month: 1,
        year: 0x70,
        century: 0x19,
        format: 0x02,
    };

    #[test]
    fn known_dates() {
        assert_eq!(unix_time(&EPOCH), Some(0));
        let leap = ClockRegisters {
            second: 0x59,
            minute: 0x58,
            hour: 0x23,
            day: 0x29,
            month: 2,
            year: 0x24,
            century: 0x20,
            format: 2,
        };
        assert_eq!(unix_time(&leap), Some(1_709_251_139));
        let binary = ClockRegisters {
            second: 40,
            minute: 46,
            hour: 1,
            day: 9,
            month: 9,
            year: 1,
            century: 20,
            format: 6,
        };
        assert_eq!(unix_time(&binary), Some(1_000_000_000));
    }

    #[test]
    fn twelve_hours() {
        let at = |hour| {
            unix_time(&ClockRegisters {
                hour,
                format: 0,
                ..EPOCH
            })
        };
        assert_eq!(at(0x12), Some(0));
        assert_eq!(at(0x01), Some(3600));
        assert_eq!(at(0x92), Some(12 * 3600));
        assert_eq!(at(0x91), Some(23 * 3600));
    }

    #[test]
    fn a_missing_century_is_this_one() {
        for century in [0, 0xff] {
            let clock = ClockRegisters {
                century,
                year: 0x01,
                ..EPOCH
            };
            assert_eq!(unix_time(&clock), Some(978_307_200));
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for clock in [
            ClockRegisters { month: 0, ..EPOCH },
            ClockRegisters {
                month: 0x13,
                ..EPOCH
            },
            ClockRegisters { day: 0, ..EPOCH },
            ClockRegisters {
                minute: 0x60,
                ..EPOCH
            },
            ClockRegisters {
                hour: 0x24,
                ..EPOCH
            },
            ClockRegisters {
                second: 0x1f,
                ..EPOCH
            },
        ] {
            assert_eq!(unix_time(&clock), None, "{clock:?}");
        }
    }
}
