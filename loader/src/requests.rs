//! Finding the kernel's requests in its loaded image (Limine protocol, "Base protocol revisions", "Features" and
//! "Requests Delimiters"). The image is looked at as aligned 64-bit words, since everything sought is 8-byte aligned.

use crate::protocol::Feature;
use core::fmt;

const COMMON: [u64; 2] = [0xc7b1_dd30_df4c_8b88, 0x0a82_e883_a194_f07b];
const START: [u64; 4] = [
    0xf6b8_f4b3_9de7_d1ae,
    0xfab9_1a69_40fc_b9cf,
    0x785c_6ed0_15d3_e316,
    0x181e_920a_7852_b9d9,
];
const END: [u64; 2] = [0xadc0_e053_1bb1_0d03, 0x9572_709f_3176_4c62];
const BASE_REVISION: [u64; 2] = [0xf956_2b2d_5c95_a6c8, 0x6a7b_3849_4453_6bdc];

/// The highest base revision that the loader implements; the lowest is 0.
pub const HIGHEST_BASE_REVISION: u64 = 3;

/// Words of a request before its own members: id, revision, response.
pub const HEADER_WORDS: usize = 6;

/// A kernel that the protocol forbids to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Two requests with the same id.
    Twice(Feature),
    /// Two base revision tags.
    TwoRevisions,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Twice(feature) => write!(f, "the kernel makes the {feature:?} request twice"),
            Error::TwoRevisions => write!(f, "the kernel has two base revision tags"),
        }
    }
}

/// Where in the image the requests are, as indices of words.
#[derive(Clone, Copy, Debug)]
pub struct Requests {
    /// The base revision that the kernel runs under.
    pub base_revision: u64,
    tag: Option<usize>,
    found: [Option<usize>; Feature::ALL.len()],
}

impl Requests {
    /// Searches the image. Ids that the loader does not know are passed over: their responses stay null.
    pub fn scan(image: &[u64]) -> Result<Requests, Error> {
        let (first, last) = delimited(image);
        let area = &image[..last];
        let mut requests = Requests {
            base_revision: 0,
            tag: None,
            found: [None; Feature::ALL.len()],
        };
        for index in first..last {
            // Nearly all words are neither; a whole comparison for each would be most of a boot's time.
            let word = area[index];
            if word == COMMON[0] {
                requests.note_request(area, index)?;
            } else if word == BASE_REVISION[0]
                && area.len() - index >= 3
                && area[index + 1] == BASE_REVISION[1]
            {
                if requests.tag.replace(index).is_some() {
                    return Err(Error::TwoRevisions);
                }
                requests.base_revision = area[index + 2].min(HIGHEST_BASE_REVISION);
            }
        }
        Ok(requests)
    }

    fn note_request(&mut self, area: &[u64], index: usize) -> Result<(), Error> {
        let rest = &area[index..];
        if rest.len() < HEADER_WORDS || rest[1] != COMMON[1] {
            return Ok(());
        }
        for (slot, feature) in self.found.iter_mut().zip(Feature::ALL) {
            if rest[2..4] == feature.id()
                && rest.len() >= HEADER_WORDS + feature.request_words(rest[4])
            {
                return if slot.replace(index).is_some() {
                    Err(Error::Twice(*feature))
                } else {
                    Ok(())
                };
            }
        }
        Ok(())
    }

    /// Tells the kernel which base revision it got: the tag's third word becomes 0 if the requested one is implemented and
    /// is left alone otherwise; the second becomes the one in force, as loaders that know revision 3 do.
    pub fn answer_base_revision(&self, image: &mut [u64]) {
        if let Some(tag) = self.tag {
            if image[tag + 2] <= HIGHEST_BASE_REVISION {
                image[tag + 2] = 0;
            }
            image[tag + 1] = self.base_revision;
        }
    }

    /// True if the kernel makes this request.
    pub fn has(&self, feature: Feature) -> bool {
        self.found[feature as usize].is_some()
    }

    /// The request's revision, if the kernel makes it.
    pub fn revision(&self, image: &[u64], feature: Feature) -> Option<u64> {
        self.found[feature as usize].map(|index| image[index + 4])
    }

    /// The request's member number `member` after the response, in words, if the kernel makes the request. The member must
    /// exist in the revision that the kernel uses.
    pub fn member(&self, image: &[u64], feature: Feature, member: usize) -> Option<u64> {
        self.found[feature as usize].map(|index| image[index + HEADER_WORDS + member])
    }

    /// Points the request's response to `address`, if the kernel makes the request.
    pub fn answer(&self, image: &mut [u64], feature: Feature, address: u64) {
        if let Some(index) = self.found[feature as usize] {
            image[index + 5] = address;
        }
    }
}

/// The words between the last start marker and the first end marker after it; without the one or the other, from the
/// image's beginning or to its end.
fn delimited(image: &[u64]) -> (usize, usize) {
    let first = (0..image.len())
        .rev()
        .find(|index| image[*index] == START[0] && image[*index..].starts_with(&START))
        .map_or(0, |index| index + START.len());
    let last = (first..image.len())
        .find(|index| image[*index] == END[0] && image[*index..].starts_with(&END))
        .unwrap_or(image.len());
    (first, last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{vec, vec::Vec};

    fn request(feature: Feature) -> Vec<u64> {
        let [third, fourth] = feature.id();
        [COMMON[0], COMMON[1], third, fourth, 0, 0].to_vec()
    }

    fn image(parts: &[&[u64]]) -> Vec<u64> {
        parts.concat()
    }

    #[test]
    fn requests_are_found_and_answered() {
        let mut image = image(&[
            &[1, 2, 3],
            &request(Feature::Hhdm),
            &request(Feature::Mp),
            &[1],
            &[0; 5],
        ]);
        let requests = Requests::scan(&image).unwrap();
        assert_eq!(requests.base_revision, 0);
        assert!(
            requests.has(Feature::Hhdm)
                && requests.has(Feature::Mp)
                && !requests.has(Feature::Rsdp)
        );
        assert_eq!(requests.member(&image, Feature::Mp, 0), Some(1));
        assert_eq!(requests.member(&image, Feature::Rsdp, 0), None);
        requests.answer(&mut image, Feature::Hhdm, 0x1234);
        requests.answer(&mut image, Feature::Rsdp, 0x9999);
        assert_eq!(image[8], 0x1234);
        assert!(!image.contains(&0x9999));
    }

    #[test]
    fn base_revision_tag() {
        for (asked, used, left) in [(0, 0, 0), (2, 2, 0), (3, 3, 0), (7, 3, 7)] {
            let mut image = image(&[&[0], &BASE_REVISION, &[asked]]);
            let requests = Requests::scan(&image).unwrap();
            assert_eq!(requests.base_revision, used);
            requests.answer_base_revision(&mut image);
            assert_eq!(image, [0, BASE_REVISION[0], used, left]);
        }
        let two = image(&[&BASE_REVISION, &[2], &BASE_REVISION, &[2]]);
        assert_eq!(Requests::scan(&two).unwrap_err(), Error::TwoRevisions);
    }

    #[test]
    fn markers_are_honoured() {
        let image = image(&[
            &request(Feature::Rsdp),
            &START,
            &request(Feature::Hhdm),
            &START,
            &request(Feature::MemoryMap),
            &END,
            &request(Feature::Framebuffer),
            &END,
        ]);
        let requests = Requests::scan(&image).unwrap();
        let found: Vec<_> = Feature::ALL
            .iter()
            .filter(|feature| requests.has(**feature))
            .collect();
        assert_eq!(found, [&Feature::MemoryMap]);
    }

    #[test]
    fn one_marker_alone() {
        let start = image(&[&request(Feature::Rsdp), &START, &request(Feature::Hhdm)]);
        let requests = Requests::scan(&start).unwrap();
        assert!(requests.has(Feature::Hhdm) && !requests.has(Feature::Rsdp));
        let end = image(&[&request(Feature::Rsdp), &END, &request(Feature::Hhdm)]);
        let requests = Requests::scan(&end).unwrap();
        assert!(!requests.has(Feature::Hhdm) && requests.has(Feature::Rsdp));
    }

    #[test]
    fn twice_is_refused() {
        let image = image(&[&request(Feature::Hhdm), &request(Feature::Hhdm)]);
        assert_eq!(
            Requests::scan(&image).unwrap_err(),
            Error::Twice(Feature::Hhdm)
        );
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_no_request() {
        let whole = image(&[&request(Feature::Mp), &[1]]);
        for length in 0..whole.len() {
            assert!(!Requests::scan(&whole[..length]).unwrap().has(Feature::Mp));
        }
        assert!(Requests::scan(&whole).unwrap().has(Feature::Mp));
        let mut unknown = vec![0; 12];
        unknown[..2].copy_from_slice(&COMMON);
        assert!(
            Feature::ALL
                .iter()
                .all(|feature| !Requests::scan(&unknown).unwrap().has(*feature))
        );
    }
}
