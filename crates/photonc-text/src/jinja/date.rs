//! The date that templates may ask for. There is no clock: it is what the user gives.

use super::error::{Fault, Kind, Outcome, fail};

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
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

/// A day of the Gregorian calendar, and a time of it if one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Date {
    year: u32,
    month: u32,
    day: u32,
    time: Option<[u32; 3]>,
}

impl std::str::FromStr for Date {
    type Err = String;

    /// `2026-01-31` or `2026-01-31T23:59:59`
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no date; expected one such as 2026-01-31 or 2026-01-31T23:59:59");
        let numbers = |text: &str, by: char, lengths: [usize; 3]| {
            let parts: Vec<&str> = text.split(by).collect();
            let fits = parts.len() == 3
                && parts.iter().zip(lengths).all(|(part, length)| {
                    part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit())
                });
            let mut numbers = [0; 3];
            for (number, part) in numbers.iter_mut().zip(parts) {
                *number = part.parse().ok()?;
            }
            fits.then_some(numbers)
        };
        let (day, time) = text.split_once(['T', ' ']).map_or((text, None), |(day, time)| (day, Some(time)));
        let [year, month, day] = numbers(day, '-', [4, 2, 2]).ok_or_else(wrong)?;
        let time = time.map(|time| numbers(time, ':', [2, 2, 2]).ok_or_else(wrong)).transpose()?;
        let date = Date { year, month, day, time };
        let clock = time.is_none_or(|[hour, minute, second]| hour < 24 && minute < 60 && second < 60);
        let calendar = year > 0 && (1..=12).contains(&month) && (1..=date.days_of_month()).contains(&day);
        if clock && calendar { Ok(date) } else { Err(wrong()) }
    }
}

impl Date {
    fn days_of_month(self) -> u32 {
        match self.month {
            2 if self.is_leap() => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn is_leap(self) -> bool {
        self.year.is_multiple_of(4) && (!self.year.is_multiple_of(100) || self.year.is_multiple_of(400))
    }

    /// Day of the year, from 1.
    fn day_of_year(self) -> u32 {
        (1..self.month).map(|month| Date { month, ..self }.days_of_month()).sum::<u32>() + self.day
    }

    /// Day of the week, Monday 0.
    fn weekday(self) -> usize {
        let before = self.year - 1;
        ((before * 365 + before / 4 - before / 100 + before / 400 + self.day_of_year() + 6) % 7) as usize
    }

    /// Python's `strftime` without a time zone.
    pub fn format(self, format: &str) -> Outcome<String> {
        let mut out = String::new();
        let mut rest = format.chars();
        while let Some(character) = rest.next() {
            if character != '%' {
                out.push(character);
                continue;
            }
            let mut code = rest.next();
            let bare = code == Some('-');
            if bare {
                code = rest.next();
            }
            let Some(code) = code else { return fail("strftime_now: a lone % at the end of the format") };
            let text = self.part(code)?;
            let plain = text.trim_start_matches(['0', ' ']);
            out.push_str(match (bare, plain) {
                (false, _) => &text,
                (true, "") => "0",
                (true, plain) => plain,
            });
        }
        Ok(out)
    }

    fn part(self, code: char) -> Outcome<String> {
        let Date { year, month, day, .. } = self;
        let weekday = self.weekday();
        let month_name = MONTHS[month as usize - 1];
        let [hour, minute, second] = match (self.time, code) {
            (Some(time), _) => time,
            (None, 'H' | 'I' | 'M' | 'S' | 'p' | 'c' | 'X' | 'T' | 'R' | 'f') => {
                return Err(no_date("a time", code));
            }
            (None, _) => [0; 3],
        };
        let clock = format!("{hour:02}:{minute:02}:{second:02}");
        Ok(match code {
            'Y' => year.to_string(),
            'y' => format!("{:02}", year % 100),
            'm' => format!("{month:02}"),
            'd' => format!("{day:02}"),
            'e' => format!("{day:2}"),
            'j' => format!("{:03}", self.day_of_year()),
            'B' => month_name.to_owned(),
            'b' | 'h' => month_name[..3].to_owned(),
            'A' => DAYS[weekday].to_owned(),
            'a' => DAYS[weekday][..3].to_owned(),
            'u' => (weekday + 1).to_string(),
            'w' => ((weekday + 1) % 7).to_string(),
            'H' => format!("{hour:02}"),
            'I' => format!("{:02}", (hour + 11) % 12 + 1),
            'M' => format!("{minute:02}"),
            'S' => format!("{second:02}"),
            'p' => if hour < 12 { "AM" } else { "PM" }.to_owned(),
            'F' => format!("{year}-{month:02}-{day:02}"),
            'D' | 'x' => format!("{month:02}/{day:02}/{:02}", year % 100),
            'T' | 'X' => clock,
            'R' => format!("{hour:02}:{minute:02}"),
            'c' => format!("{} {} {day:2} {clock} {year}", &DAYS[weekday][..3], &month_name[..3]),
            'Z' | 'z' => String::new(),
            '%' => "%".to_owned(),
            other => return fail(format!("strftime_now: the code %{other} is not supported")),
        })
    }
}

/// What a template asks for and nobody gave.
pub fn no_date(what: &str, code: char) -> Fault {
    let message = match code {
        '\0' => format!("the template asks for {what}"),
        code => format!("the template asks for {what} (%{code})"),
    };
    Fault { kind: Kind::NoDate, ..Fault::new(message) }
}
