//! How many descriptors the process may have.

use std::io;

use super::checked;

/// Lets the process have as many descriptors as it is allowed to ask for: shards, interfaces, lanes and clients of the control API add up to
/// more than the thousand that a process begins with, a number kept for programs that use `select`.
///
/// # Errors
/// When the kernel refuses; the old limit holds then.
pub fn raise_descriptor_limit() -> io::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure, which is ours.
    checked(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the kernel only reads the structure.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_limit_is_what_is_allowed() {
        raise_descriptor_limit().expect("nobody is above the hard limit");
        let limits = fs::read_to_string("/proc/self/limits").expect("the kernel tells");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line of it");
        let numbers: Vec<&str> = line.split_whitespace().skip(3).take(2).collect();
        assert_eq!(numbers[0], numbers[1], "{line}");
    }
}
