//! Patterns (Lua 5.4 reference manual, 6.4.1), matched by a machine with a stack of its own.
//!
//! A match may take long: the machine counts *fuel* and stops when there is none left, at any point inside a match.
//! It holds offsets and no references, so its owner may pass a safepoint, fetch the bytes anew and go on. Nothing here knows the heap.
//!
//! What Lua's matcher does by recursion is here a stack of alternatives, of the same depth and with the same limit.

use alloc::vec::Vec;
use core::fmt;

/// The most captures that a pattern may have (`LUA_MAXCAPTURES`).
pub const MAX_CAPTURES: usize = 32;

/// The most alternatives that may be open at once (`MAXCCALLS`).
const MAX_DEPTH: usize = 200;

const ESCAPE: u8 = b'%';

/// What is wrong with a pattern, a capture's number or a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// A `%` is its last character.
    EndsWithEscape,
    /// A `[` is never closed.
    MissingBracket,
    /// `%b` without its two characters.
    MissingBalanceArguments,
    /// `%f` without a set.
    MissingFrontierSet,
    /// A number that is no capture's, counted from 1.
    InvalidCaptureIndex(usize),
    /// A `)` without its `(`.
    InvalidCapture,
    /// More than [`MAX_CAPTURES`].
    TooManyCaptures,
    /// A `(` without its `)`.
    UnfinishedCapture,
    /// Too many alternatives open at once.
    TooComplex,
    /// `%` in a replacement before something else than a digit or `%`.
    InvalidReplacement,
    /// There is no memory to keep alternatives in.
    NoMemory,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternError::EndsWithEscape => "malformed pattern (ends with '%')",
            PatternError::MissingBracket => "malformed pattern (missing ']')",
            PatternError::MissingBalanceArguments => {
                "malformed pattern (missing arguments to '%b')"
            }
            PatternError::MissingFrontierSet => "missing '[' after '%f' in pattern",
            PatternError::InvalidCaptureIndex(i) => return write!(f, "invalid capture index %{i}"),
            PatternError::InvalidCapture => "invalid pattern capture",
            PatternError::TooManyCaptures => "too many captures",
            PatternError::UnfinishedCapture => "unfinished capture",
            PatternError::TooComplex => "pattern too complex",
            PatternError::InvalidReplacement => "invalid use of '%' in replacement string",
            PatternError::NoMemory => "not enough memory",
        })
    }
}

/// How far a match has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It matches, from `start` to before `end`.
    Match {
        /// Offset of the first byte.
        start: usize,
        /// Offset after the last byte.
        end: usize,
    },
    /// It does not match.
    NoMatch,
    /// The fuel is used up: to be called again with more.
    OutOfFuel,
}

/// What a capture caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The bytes from the first offset to before the second.
    Span(usize, usize),
    /// The offset of a `()`; the program sees one more.
    Position(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    Unfinished,
    Position,
    Bytes(usize),
}

/// What to do when the rest of the pattern did not match. `p` is where the pattern goes on.
#[derive(Clone, Copy, Debug)]
enum Alternative {
    /// Forget the last capture.
    Open,
    /// Make this capture unfinished again.
    Close { capture: usize },
    /// The item was optional: go on at `p` without it.
    Skip { s: usize, p: usize },
    /// The item matched `count` times from `s` on: try with one less.
    Longest { s: usize, count: usize, p: usize },
    /// The item at `item` matched until `s`: try with one more.
    Shortest { s: usize, item: usize, p: usize },
}

/// What to go on with after a pause.
#[derive(Clone, Copy, Debug)]
enum Mode {
    /// No match has begun: look for a place to begin one.
    Search,
    /// Match the item at `p` against the subject at `s`.
    Item,
    /// The top of the stack is a `Longest` whose count is still growing, for the item at `p`.
    Grow,
    /// Inside `%b` at `p`, `depth` open, from `s` on.
    Balance { depth: usize },
    /// Inside a back reference at `p`: `done` of its bytes have been found equal.
    Refer { done: usize },
    /// The last item did not match: take the top alternative.
    Fail,
}

/// A search for a pattern in a subject.
#[derive(Debug)]
pub struct Matcher {
    /// Where the present attempt began.
    start: usize,
    s: usize,
    p: usize,
    mode: Mode,
    /// Of the pattern, what follows the anchor.
    pattern_start: usize,
    anchored: bool,
    /// The end of the match before, where `gmatch` and `gsub` accept no other empty match.
    last_end: Option<usize>,
    /// A byte with which every match begins.
    first: Option<u8>,
    level: usize,
    captures: [(usize, Length); MAX_CAPTURES],
    alternatives: Vec<Alternative>,
}

impl Matcher {
    /// A search that begins at offset `start`. With `anchor`, a leading `^` ties the pattern to that place; without, it is an ordinary character.
    pub fn new(pattern: &[u8], start: usize, anchor: bool) -> Matcher {
        let anchored = anchor && pattern.first() == Some(&b'^');
        let pattern_start = usize::from(anchored);
        Matcher {
            start,
            s: start,
            p: 0,
            mode: Mode::Search,
            pattern_start,
            anchored,
            last_end: None,
            first: if anchored {
                None
            } else {
                first_literal(pattern)
            },
            level: 0,
            captures: [(0, Length::Unfinished); MAX_CAPTURES],
            alternatives: Vec::new(),
        }
    }

    /// Whether the pattern is tied to the place where the search began.
    pub fn is_anchored(&self) -> bool {
        self.anchored
    }

    /// Where the present attempt began, or the next one will.
    pub fn position(&self) -> usize {
        self.start
    }

    /// Begins to look for the next match, at `start`, and takes none that ends at `last_end`.
    pub fn restart(&mut self, start: usize, last_end: Option<usize>) {
        self.start = start;
        self.last_end = last_end;
        self.mode = Mode::Search;
    }

    /// Goes on with the search until it is decided or `fuel` is used up. Subject and pattern hold the same bytes at every call.
    pub fn find(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        fuel: &mut usize,
    ) -> Result<Progress, PatternError> {
        loop {
            if matches!(self.mode, Mode::Search) {
                if self.start > subject.len() {
                    return Ok(Progress::NoMatch);
                }
                if let Some(first) = self.first {
                    let window = &subject[self.start..];
                    let window = &window[..window.len().min(fuel.saturating_mul(16))];
                    match memchr::memchr(first, window) {
                        Some(at) => {
                            self.start += at;
                            *fuel -= at / 16;
                        }
                        None => {
                            self.start += window.len();
                            *fuel -= window.len().div_ceil(16).min(*fuel);
                            if self.start == subject.len() {
                                self.start += 1;
                                return Ok(Progress::NoMatch);
                            }
                            return Ok(Progress::OutOfFuel);
                        }
                    }
                }
                self.s = self.start;
                self.p = self.pattern_start;
                self.level = 0;
                self.alternatives.clear();
                self.mode = Mode::Item;
            }
            match self.attempt(subject, pattern, fuel)? {
                Progress::NoMatch => {}
                Progress::Match { end, .. } if self.last_end == Some(end) => {}
                decided => return Ok(decided),
            }
            if self.anchored {
                return Ok(Progress::NoMatch);
            }
            self.start += 1;
            self.mode = Mode::Search;
        }
    }

    /// How many values the last match has: its captures, or 1, the whole, if there are none.
    pub fn values(&self) -> usize {
        self.level.max(1)
    }

    /// How many captures the last match has.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Capture `i`, from 0, of the last match, which is from `start` to `end`; that itself if it is the only value.
    pub fn capture(&self, i: usize, start: usize, end: usize) -> Result<Capture, PatternError> {
        if i >= self.level {
            return if i == 0 {
                Ok(Capture::Span(start, end))
            } else {
                Err(PatternError::InvalidCaptureIndex(i + 1))
            };
        }
        let (at, length) = self.captures[i];
        match length {
            Length::Unfinished => Err(PatternError::UnfinishedCapture),
            Length::Position => Ok(Capture::Position(at)),
            Length::Bytes(length) => Ok(Capture::Span(at, at + length)),
        }
    }

    fn push(&mut self, alternative: Alternative) -> Result<(), PatternError> {
        if self.alternatives.len() >= MAX_DEPTH - 1 {
            return Err(PatternError::TooComplex);
        }
        self.alternatives
            .try_reserve(1)
            .map_err(|_| PatternError::NoMemory)?;
        self.alternatives.push(alternative);
        Ok(())
    }

    /// Goes on with one attempt.
    fn attempt(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        fuel: &mut usize,
    ) -> Result<Progress, PatternError> {
        loop {
            if *fuel == 0 {
                return Ok(Progress::OutOfFuel);
            }
            *fuel -= 1;
            match self.mode {
                Mode::Item => {
                    if self.p == pattern.len() {
                        return Ok(Progress::Match {
                            start: self.start,
                            end: self.s,
                        });
                    }
                    self.item(subject, pattern, fuel)?;
                }
                Mode::Grow => self.grow(subject, pattern, fuel)?,
                Mode::Balance { depth } => self.balance(subject, pattern, depth, fuel),
                Mode::Refer { done } => self.refer(subject, pattern, done, fuel)?,
                Mode::Fail => {
                    if !self.fail(subject, pattern)? {
                        return Ok(Progress::NoMatch);
                    }
                }
                Mode::Search => return Ok(Progress::NoMatch),
            }
        }
    }

    /// Matches the item at `p`.
    fn item(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        fuel: &mut usize,
    ) -> Result<(), PatternError> {
        let (s, p) = (self.s, self.p);
        let next = pattern.get(p + 1).copied();
        match (pattern[p], next) {
            (b'(', _) => {
                if self.level == MAX_CAPTURES {
                    return Err(PatternError::TooManyCaptures);
                }
                self.push(Alternative::Open)?;
                let position = next == Some(b')');
                self.captures[self.level] = (
                    s,
                    if position {
                        Length::Position
                    } else {
                        Length::Unfinished
                    },
                );
                self.level += 1;
                self.p += if position { 2 } else { 1 };
            }
            (b')', _) => {
                let open = self.captures[..self.level]
                    .iter()
                    .rposition(|c| c.1 == Length::Unfinished);
                let capture = open.ok_or(PatternError::InvalidCapture)?;
                self.push(Alternative::Close { capture })?;
                self.captures[capture].1 = Length::Bytes(s - self.captures[capture].0);
                self.p += 1;
            }
            (b'$', None) => {
                if s == subject.len() {
                    self.p += 1;
                } else {
                    self.mode = Mode::Fail;
                }
            }
            (ESCAPE, Some(b'b')) => {
                let Some(&[open, _]) = pattern.get(p + 2..p + 4) else {
                    return Err(PatternError::MissingBalanceArguments);
                };
                if subject.get(s) == Some(&open) {
                    self.s += 1;
                    self.mode = Mode::Balance { depth: 1 };
                } else {
                    self.mode = Mode::Fail;
                }
            }
            (ESCAPE, Some(b'f')) => {
                let set = p + 2;
                if pattern.get(set) != Some(&b'[') {
                    return Err(PatternError::MissingFrontierSet);
                }
                let end = class_end(pattern, set)?;
                *fuel = fuel.saturating_sub((end - set) / 16);
                let before = if s == 0 { 0 } else { subject[s - 1] };
                let after = subject.get(s).copied().unwrap_or(0);
                if !in_set(before, &pattern[set..end]) && in_set(after, &pattern[set..end]) {
                    self.p = end;
                } else {
                    self.mode = Mode::Fail;
                }
            }
            (ESCAPE, Some(b'0'..=b'9')) => self.mode = Mode::Refer { done: 0 },
            _ => self.single(subject, pattern, fuel)?,
        }
        Ok(())
    }

    /// Matches the item at `p`, one that stands for a single character, with the suffix that it may have.
    fn single(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        fuel: &mut usize,
    ) -> Result<(), PatternError> {
        let (s, p) = (self.s, self.p);
        let end = class_end(pattern, p)?;
        *fuel = fuel.saturating_sub((end - p) / 16);
        let matches = || {
            subject
                .get(s)
                .is_some_and(|&byte| matches_class(byte, &pattern[p..end]))
        };
        match pattern.get(end) {
            Some(b'*') => {
                self.push(Alternative::Longest {
                    s,
                    count: 0,
                    p: end + 1,
                })?;
                self.mode = Mode::Grow;
            }
            Some(b'+') => {
                if matches() {
                    self.push(Alternative::Longest {
                        s: s + 1,
                        count: 0,
                        p: end + 1,
                    })?;
                    self.mode = Mode::Grow;
                } else {
                    self.mode = Mode::Fail;
                }
            }
            Some(b'-') => {
                self.push(Alternative::Shortest {
                    s,
                    item: p,
                    p: end + 1,
                })?;
                self.p = end + 1;
            }
            Some(b'?') => {
                if matches() {
                    self.push(Alternative::Skip { s, p: end + 1 })?;
                    self.s += 1;
                }
                self.p = end + 1;
            }
            _ if matches() => {
                self.s += 1;
                self.p = end;
            }
            _ => self.mode = Mode::Fail,
        }
        Ok(())
    }

    /// Counts on how often the item at `p` matches, then goes on behind it.
    fn grow(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        fuel: &mut usize,
    ) -> Result<(), PatternError> {
        let Some(Alternative::Longest { s, count, p }) = self.alternatives.last_mut() else {
            self.mode = Mode::Fail;
            return Ok(());
        };
        let class = &pattern[self.p..*p - 1];
        let cost = 1 + class.len() / 16;
        let limit = (*fuel / cost).max(1);
        let rest = &subject[*s + *count..];
        let window = &rest[..rest.len().min(limit)];
        let found = match class {
            b"." => window.len(),
            [literal] => window.iter().take_while(|byte| **byte == *literal).count(),
            _ => window
                .iter()
                .take_while(|byte| matches_class(**byte, class))
                .count(),
        };
        *fuel = fuel.saturating_sub(found * cost);
        *count += found;
        if found == window.len() && window.len() < rest.len() {
            return Ok(());
        }
        self.s = *s + *count;
        self.p = *p;
        self.mode = Mode::Item;
        if *count == 0 {
            self.alternatives.pop();
        }
        Ok(())
    }

    /// Goes on with `%bxy` at `p`.
    fn balance(&mut self, subject: &[u8], pattern: &[u8], mut depth: usize, fuel: &mut usize) {
        let (open, close) = (pattern[self.p + 2], pattern[self.p + 3]);
        while let Some(&byte) = subject.get(self.s) {
            self.s += 1;
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    self.p += 4;
                    self.mode = Mode::Item;
                    return;
                }
            } else if byte == open {
                depth += 1;
            }
            // At least one byte was read, so that any portion of fuel makes headway.
            if *fuel == 0 {
                self.mode = Mode::Balance { depth };
                return;
            }
            *fuel -= 1;
        }
        self.mode = Mode::Fail;
    }

    /// Goes on with `%1` to `%9` at `p`.
    fn refer(
        &mut self,
        subject: &[u8],
        pattern: &[u8],
        done: usize,
        fuel: &mut usize,
    ) -> Result<(), PatternError> {
        let number = usize::from(pattern[self.p + 1] - b'0');
        let error = PatternError::InvalidCaptureIndex(number);
        let index = number
            .checked_sub(1)
            .filter(|&i| i < self.level)
            .ok_or(error)?;
        let (start, length) = match self.captures[index] {
            (_, Length::Unfinished) => return Err(error),
            // A position's length is none that a subject has, as Lua's code has it: it never matches.
            (_, Length::Position) => {
                self.mode = Mode::Fail;
                return Ok(());
            }
            (start, Length::Bytes(length)) => (start, length),
        };
        if subject.len() - self.s < length {
            self.mode = Mode::Fail;
            return Ok(());
        }
        let step = (length - done).min(fuel.saturating_mul(16).saturating_add(16));
        let (a, b) = (start + done, self.s + done);
        *fuel = fuel.saturating_sub(step / 16);
        if subject[a..a + step] != subject[b..b + step] {
            self.mode = Mode::Fail;
        } else if done + step < length {
            self.mode = Mode::Refer { done: done + step };
        } else {
            self.s += length;
            self.p += 2;
            self.mode = Mode::Item;
        }
        Ok(())
    }

    /// Takes the top alternative; false if there is none.
    fn fail(&mut self, subject: &[u8], pattern: &[u8]) -> Result<bool, PatternError> {
        let Some(top) = self.alternatives.last_mut() else {
            return Ok(false);
        };
        match top {
            Alternative::Open => self.level -= 1,
            Alternative::Close { capture } => self.captures[*capture].1 = Length::Unfinished,
            Alternative::Skip { s, p } => {
                self.s = *s;
                self.p = *p;
                self.mode = Mode::Item;
            }
            Alternative::Longest { count: 0, .. } => {}
            Alternative::Longest { s, count, p } => {
                *count -= 1;
                self.s = *s + *count;
                self.p = *p;
                self.mode = Mode::Item;
                return Ok(true);
            }
            Alternative::Shortest { s, item, p } => {
                if subject
                    .get(*s)
                    .is_some_and(|&byte| matches_class(byte, &pattern[*item..*p - 1]))
                {
                    *s += 1;
                    self.s = *s;
                    self.p = *p;
                    self.mode = Mode::Item;
                    return Ok(true);
                }
            }
        }
        self.alternatives.pop();
        Ok(true)
    }
}

/// Whether the pattern has no character with a meaning of its own, so that it can be looked for as it is.
pub fn is_plain(pattern: &[u8]) -> bool {
    !pattern.iter().any(|b| b"^$*+?.([%-".contains(b))
}

/// The byte with which every match of an unanchored pattern begins, where its first item shows that.
fn first_literal(pattern: &[u8]) -> Option<u8> {
    let (literal, rest) = match pattern {
        [ESCAPE, literal, rest @ ..] if literal.is_ascii_punctuation() => (*literal, rest),
        [literal, rest @ ..] if !b"$.([%)".contains(literal) => (*literal, rest),
        _ => return None,
    };
    match rest.first() {
        Some(b'*' | b'?' | b'-') => None,
        _ => Some(literal),
    }
}

/// Where the single-character item at `p` ends.
fn class_end(pattern: &[u8], p: usize) -> Result<usize, PatternError> {
    match pattern[p] {
        ESCAPE if p + 1 == pattern.len() => Err(PatternError::EndsWithEscape),
        ESCAPE => Ok(p + 2),
        b'[' => {
            let mut at = p + 1;
            if pattern.get(at) == Some(&b'^') {
                at += 1;
            }
            // A `]` that comes first stands for itself.
            loop {
                match pattern.get(at) {
                    None => return Err(PatternError::MissingBracket),
                    Some(&ESCAPE) => {
                        // The escaped character is never taken for the closing bracket.
                        if at + 1 == pattern.len() {
                            return Err(PatternError::MissingBracket);
                        }
                        at += 2;
                    }
                    Some(_) => at += 1,
                }
                if pattern.get(at) == Some(&b']') {
                    return Ok(at + 1);
                }
            }
        }
        _ => Ok(p + 1),
    }
}

/// Whether a byte belongs to a single-character item.
#[inline]
fn matches_class(byte: u8, class: &[u8]) -> bool {
    match class {
        [b'.'] => true,
        [literal] => byte == *literal,
        [ESCAPE, letter] => in_letter_class(byte, *letter),
        _ => in_set(byte, class),
    }
}

/// Whether a byte belongs to the class that `%letter` stands for, C's `isalpha` and so on in the default locale.
#[inline]
fn in_letter_class(byte: u8, letter: u8) -> bool {
    let belongs = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => crate::number::is_space(byte),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        // No longer in the manual, and still in Lua.
        b'z' => byte == 0,
        _ => return byte == letter,
    };
    belongs != letter.is_ascii_uppercase()
}

/// Whether a byte belongs to a set, given with its brackets.
fn in_set(byte: u8, set: &[u8]) -> bool {
    let inner = &set[1..set.len() - 1];
    let (negated, mut inner) = match inner {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, inner),
    };
    while let [first, rest @ ..] = inner {
        match (*first, rest) {
            (ESCAPE, [letter, rest @ ..]) => {
                if in_letter_class(byte, *letter) {
                    return !negated;
                }
                inner = rest;
            }
            (from, [b'-', to, rest @ ..]) => {
                if (from..=*to).contains(&byte) {
                    return !negated;
                }
                inner = rest;
            }
            (literal, rest) => {
                if byte == literal {
                    return !negated;
                }
                inner = rest;
            }
        }
    }
    negated
}

/// A piece of a replacement string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replacement<'a> {
    /// These bytes.
    Text(&'a [u8]),
    /// The whole match.
    Whole,
    /// The capture with this index, from 0.
    Capture(usize),
}

/// The pieces of a replacement string, in order.
pub fn replacement(text: &[u8]) -> impl Iterator<Item = Result<Replacement<'_>, PatternError>> {
    let mut rest = text;
    core::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let Some(at) = memchr::memchr(ESCAPE, rest) else {
            return Some(Ok(Replacement::Text(core::mem::take(&mut rest))));
        };
        if at > 0 {
            let (text, after) = rest.split_at(at);
            rest = after;
            return Some(Ok(Replacement::Text(text)));
        }
        let piece = match rest.get(1) {
            Some(b'%') => Ok(Replacement::Text(&rest[1..2])),
            Some(b'0') => Ok(Replacement::Whole),
            Some(digit @ b'1'..=b'9') => Ok(Replacement::Capture(usize::from(digit - b'1'))),
            _ => Err(PatternError::InvalidReplacement),
        };
        rest = rest.get(2..).unwrap_or(&[]);
        Some(piece)
    })
}

#[cfg(test)]
mod tests;
