//! Dates: seconds since 1970-01-01T00:00:00Z to fields and back, in UTC, and C's `strftime` in the C locale. Nothing here knows the heap.

use alloc::format;
use alloc::string::String;

/// A date taken apart, as C's `struct tm` has it, but with the year and the month as people count them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Date {
    /// The year.
    pub year: i64,
    /// 1 to 12.
    pub month: i64,
    /// 1 to 31.
    pub day: i64,
    /// 0 to 23.
    pub hour: i64,
    /// 0 to 59.
    pub minute: i64,
    /// 0 to 59.
    pub second: i64,
    /// 0 to 6, from Sunday.
    pub weekday: i64,
    /// 0 to 365.
    pub yearday: i64,
}

const DAY: i64 = 86_400;

const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Days since 1970-01-01 of a day of the Gregorian calendar, months and days beyond their ranges counted on. The months must be 1 to 12.
///
/// (Hinnant, "chrono-compatible low-level date algorithms": years begin in March, so that a leap day is a year's last.)
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

impl Date {
    /// The date at this moment; `None` if its year does not fit a C `int`.
    pub(super) fn from_seconds(seconds: i64) -> Option<Date> {
        let (day, of_day) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let shifted = day + 719_468;
        let era = shifted.div_euclid(146_097);
        let of_era = shifted.rem_euclid(146_097);
        let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
        let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * of_year + 2) / 153;
        let month = if shifted_month < 10 {
            shifted_month + 3
        } else {
            shifted_month - 9
        };
        let year = era * 400 + year_of_era + i64::from(month <= 2);
        i32::try_from(year - 1900).ok()?;
        Some(Date {
            year,
            month,
            day: of_year - (153 * shifted_month + 2) / 5 + 1,
            hour: of_day / 3600,
            minute: of_day / 60 % 60,
            second: of_day % 60,
            weekday: (day + 4).rem_euclid(7),
            yearday: day - days(year, 1, 1),
        })
    }

    /// The moment of these fields, any of which may lie beyond its range. All fit a C `int`, so nothing overflows.
    pub(super) fn seconds(
        year: i64,
        month: i64,
        day: i64,
        hour: i64,
        minute: i64,
        second: i64,
    ) -> i64 {
        let year = year + (month - 1).div_euclid(12);
        let month = (month - 1).rem_euclid(12) + 1;
        days(year, month, 1)
            .saturating_add(day - 1)
            .saturating_mul(DAY)
            .saturating_add(hour * 3600 + minute * 60 + second)
    }

    /// The week of the year, weeks beginning with `first` (0 is Sunday); days before the first such day are in week 0.
    fn week(&self, first: i64) -> i64 {
        (self.yearday + 7 - (self.weekday - first).rem_euclid(7)) / 7
    }

    /// Year and week by ISO 8601: weeks begin on Monday, and the first is the one with the year's first Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = days(self.year, self.month, self.day) + 3 - (self.weekday + 6) % 7;
        let year = Date::from_seconds(thursday * DAY).map_or(self.year, |date| date.year);
        (year, (thursday - days(year, 1, 1)) / 7 + 1)
    }

    /// What a conversion specifier of `strftime` gives, `letters` being what follows its `%`: one letter, or `E` or `O` and one that takes it.
    /// `None` if there is no such specifier.
    pub(super) fn format(&self, letters: &[u8]) -> Option<String> {
        let letter = match letters {
            [letter] => *letter,
            [b'E', letter @ (b'c' | b'C' | b'x' | b'X' | b'y' | b'Y')] => *letter,
            [
                b'O',
                letter @ (b'd' | b'e' | b'H' | b'I' | b'm' | b'M' | b'S' | b'u' | b'U' | b'V'
                | b'w' | b'W' | b'y'),
            ] => *letter,
            _ => return None,
        };
        let weekday = WEEKDAYS[self.weekday as usize];
        let month = MONTHS[self.month as usize - 1];
        let hour12 = (self.hour + 11) % 12 + 1;
        Some(match letter {
            b'a' => weekday[..3].into(),
            b'A' => weekday.into(),
            b'b' | b'h' => month[..3].into(),
            b'B' => month.into(),
            b'c' => format!(
                "{} {} {:2} {:02}:{:02}:{:02} {}",
                &weekday[..3],
                &month[..3],
                self.day,
                self.hour,
                self.minute,
                self.second,
                self.year
            ),
            b'C' => format!("{:02}", self.year.div_euclid(100)),
            b'd' => format!("{:02}", self.day),
            b'D' | b'x' => format!(
                "{:02}/{:02}/{:02}",
                self.month,
                self.day,
                self.year.rem_euclid(100)
            ),
            b'e' => format!("{:2}", self.day),
            b'F' => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
            b'g' => format!("{:02}", self.iso_week().0.rem_euclid(100)),
            b'G' => format!("{}", self.iso_week().0),
            b'H' => format!("{:02}", self.hour),
            b'I' => format!("{hour12:02}"),
            b'j' => format!("{:03}", self.yearday + 1),
            b'm' => format!("{:02}", self.month),
            b'M' => format!("{:02}", self.minute),
            b'n' => "\n".into(),
            b'p' => if self.hour < 12 { "AM" } else { "PM" }.into(),
            b'r' => format!(
                "{hour12:02}:{:02}:{:02} {}",
                self.minute,
                self.second,
                if self.hour < 12 { "AM" } else { "PM" }
            ),
            b'R' => format!("{:02}:{:02}", self.hour, self.minute),
            b'S' => format!("{:02}", self.second),
            b't' => "\t".into(),
            b'T' | b'X' => format!("{:02}:{:02}:{:02}", self.hour, self.minute, self.second),
            b'u' => format!("{}", (self.weekday + 6) % 7 + 1),
            b'U' => format!("{:02}", self.week(0)),
            b'V' => format!("{:02}", self.iso_week().1),
            b'w' => format!("{}", self.weekday),
            b'W' => format!("{:02}", self.week(1)),
            b'y' => format!("{:02}", self.year.rem_euclid(100)),
            b'Y' => format!("{}", self.year),
            b'z' => "+0000".into(),
            b'Z' => "GMT".into(),
            b'%' => "%".into(),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        // From the coreutils `date -u`.
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 4 001 00 00 1970-01"),
            (951_782_400, "2000-02-29 00:00:00 2 060 09 09 2000-09"),
            (1_230_768_000, "2009-01-01 00:00:00 4 001 00 00 2009-01"),
            (1_262_304_000, "2010-01-01 00:00:00 5 001 00 00 2009-53"),
            (-1, "1969-12-31 23:59:59 3 365 52 52 1970-01"),
            (4_102_444_799, "2099-12-31 23:59:59 4 365 52 52 2099-53"),
            (-2_208_988_800, "1900-01-01 00:00:00 1 001 00 01 1900-01"),
        ] {
            let date = Date::from_seconds(seconds).unwrap();
            let mut found = String::new();
            for (i, letter) in b"FTwjUW".iter().enumerate() {
                if i > 0 {
                    found.push(' ');
                }
                found.push_str(&date.format(&[*letter]).unwrap());
            }
            found.push_str(&format!(
                " {}-{}",
                date.format(b"G").unwrap(),
                date.format(b"V").unwrap()
            ));
            assert_eq!(found, text);
        }
    }

    #[test]
    fn there_and_back() {
        let mut seconds = -100_000_000_000i64;
        while seconds < 100_000_000_000 {
            let d = Date::from_seconds(seconds).unwrap();
            assert_eq!(
                Date::seconds(d.year, d.month, d.day, d.hour, d.minute, d.second),
                seconds
            );
            seconds += 86_399 * 97;
        }
        assert_eq!(
            Date::seconds(2020, 14, -3, 25, 61, 61),
            Date::seconds(2021, 1, 29, 2, 2, 1)
        );
        assert_eq!(
            Date::seconds(2020, -11, 1, 0, 0, 0),
            Date::seconds(2019, 1, 1, 0, 0, 0)
        );
    }

    #[test]
    fn specifiers() {
        let date = Date::from_seconds(1_700_000_000).unwrap();
        assert_eq!(date.format(b"c").unwrap(), "Tue Nov 14 22:13:20 2023");
        assert_eq!(date.format(b"r").unwrap(), "10:13:20 PM");
        assert_eq!(date.format(b"Ey").unwrap(), "23");
        for bad in [&b"E"[..], b"Ea", b"Oc", b"q", b""] {
            assert_eq!(date.format(bad), None);
        }
    }
}
