//! How much memory a program may have if nobody says: so much that Linux does not end the process, or another one, for want of memory.

use std::fs;
use std::path::Path;

/// Three quarters of what the machine has, or the control groups that the process is in, whichever is least. The rest is for what lies outside of
/// the program's heap and for other processes. `None` if the system does not say what there is.
pub fn default_limit() -> Option<usize> {
    let of_groups = fs::read_to_string("/proc/self/cgroup")
        .ok()
        .and_then(|groups| of_groups(&groups, Path::new("/sys/fs/cgroup")));
    let least = [of_machine(), of_groups].into_iter().flatten().min()?;
    Some(least / 4 * 3)
}

/// The machine's memory in bytes.
fn of_machine() -> Option<usize> {
    // SAFETY: a query without arguments in memory.
    let (pages, bytes) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    usize::try_from(pages)
        .ok()?
        .checked_mul(usize::try_from(bytes).ok()?)
        .filter(|bytes| *bytes != 0)
}

/// The least limit of the control groups that `/proc/self/cgroup` lists, and of those that these are in, in bytes: `man 7 cgroups`. Version 2 has one hierarchy, whose line
/// begins with `0::`; version 1 has one for memory among others.
fn of_groups(groups: &str, root: &Path) -> Option<usize> {
    let mut least = None;
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else {
            continue;
        };
        let (root, file) = if controllers.is_empty() {
            (root.to_path_buf(), "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            (root.join("memory"), "memory.limit_in_bytes")
        } else {
            continue;
        };
        let inner = root.join(group.trim_start_matches('/'));
        for folder in inner.ancestors().take_while(|path| path.starts_with(&root)) {
            // Without a limit it says `max`, or in version 1 a number that no machine comes to.
            let limit = fs::read_to_string(folder.join(file))
                .ok()
                .and_then(|text| text.trim().parse::<usize>().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_limit_below_what_the_machine_has() {
        let (limit, machine) = (default_limit().unwrap(), of_machine().unwrap());
        assert!(limit < machine && limit >= 1 << 20, "{limit} of {machine}");
    }

    #[test]
    fn the_least_limit_of_the_groups_counts() {
        let root = std::env::temp_dir().join(format!("vua-groups-{}", std::process::id()));
        for (folder, file, text) in [
            ("a/b", "memory.max", "max\n"),
            ("a", "memory.max", "3000000\n"),
            (".", "memory.max", "4000000\n"),
            ("memory/c", "memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory", "memory.limit_in_bytes", "5000000\n"),
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
            fs::write(root.join(folder).join(file), text).unwrap();
        }
        let limits = [
            ("0::/a/b\n", Some(3_000_000)),
            ("0::/\n", Some(4_000_000)),
            ("0::/gone\n", Some(4_000_000)),
            ("7:cpu:/a\n5:hugetlb,memory:/c\n", Some(5_000_000)),
            ("7:cpu:/a\n", None),
            ("", None),
        ]
        .map(|(groups, limit)| (of_groups(groups, &root), limit));
        fs::remove_dir_all(&root).unwrap();
        for (found, limit) in limits {
            assert_eq!(found, limit);
        }
    }
}
