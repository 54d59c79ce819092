//! How much memory the program takes beside what it holds.
//!
//! The system's allocator gives each thread a heap of its own. Batches wander: they are received by one thread, joined by
//! another and freed by a third, so that each heap keeps room for the most that it ever held. Few threads share a heap
//! better than they fill one each; small pieces are kept by each thread anyhow.
//!
//! A program of this size reads a few per cent of its code when it runs, but its start goes through much more of it, and each
//! page that is looked at brings its neighbours along. The kernel counts all of them as the process's memory until it is
//! short of it. Once everything runs they are let go; what is used again is mapped again, from the page cache.

/// So many cores share a heap.
const CORES_A_HEAP: usize = 4;

/// Makes threads share heaps. To be called before there are threads: each has chosen its heap by its first allocation.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn share_heaps() {
    // Who says it for the process has the last word.
    if std::env::var_os("MALLOC_ARENA_MAX").is_some() || std::env::var_os("GLIBC_TUNABLES").is_some() {
        return;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let heaps = libc::c_int::try_from(cores.div_ceil(CORES_A_HEAP)).unwrap_or(1);
    // SAFETY: it sets a number of the allocator, and may be called at any time. There is no safe interface; what it saves is
    // measured by the benchmark of collectors: a fifth of the peak.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, heaps) };
}

/// Makes threads share heaps, where the allocator can be told to.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn share_heaps() {}

/// Lets go of the pages that can be had again from the program's file.
pub(crate) fn forget_start() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let program = std::fs::read_link("/proc/self/exe").unwrap_or_default();
    for (start, length) in of_file(&read("/proc/self/smaps"), &program.to_string_lossy()) {
        // SAFETY: the range is a mapping of this process's own, of a file, that nothing may write to, and of which nothing is
        // other than in the file: each page reads the same after it was let go as before.
        let let_go = unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        if let_go != 0 {
            let error = std::io::Error::last_os_error();
            tracing::debug!(%error, "the pages of the start stay in memory");
        }
    }
}

/// The mappings of a file that are as the file is: never written, and not to be.
fn of_file(smaps: &str, file: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut candidate = None;
    for line in smaps.lines() {
        if let Some(range) = mapping(line, file) {
            candidate = range;
        } else if line.strip_prefix("Anonymous:").map(str::trim) == Some("0 kB") {
            found.extend(candidate.take());
        }
    }
    found
}

/// The first line of a mapping: its range if it is one of the file's that cannot be written, else `None` in `Some`. `None`
/// for any other line.
fn mapping(line: &str, file: &str) -> Option<Option<(usize, usize)>> {
    let mut words = line.splitn(6, ' ');
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let rights = words.next()?;
    let path = words.nth(3).unwrap_or("").trim_start();
    let fits = path == file && matches!(rights, "r-xp" | "r--p");
    Some((fits && end > start).then(|| (start, end - start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "\
1000-3000 r--p 00000000 fe:00 42                         /usr/bin/karez
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
3000-9000 r-xp 00002000 fe:00 42                         /usr/bin/karez
Anonymous:             0 kB
9000-a000 r--p 00008000 fe:00 42                         /usr/bin/karez
Anonymous:             4 kB
a000-b000 rw-p 00009000 fe:00 42                         /usr/bin/karez
Anonymous:             0 kB
b000-c000 rw-p 00000000 00:00 0 
Anonymous:             0 kB
c000-d000 r-xp 00000000 fe:00 43                         /usr/lib/libc.so.6
Anonymous:             0 kB
";

    #[test]
    fn only_what_is_as_in_the_programs_file_is_let_go() {
        let found = of_file(SMAPS, "/usr/bin/karez");
        assert_eq!(found, [(0x1000, 0x2000), (0x3000, 0x6000)]);
        assert!(of_file(SMAPS, "/usr/bin/other").is_empty());
        assert!(of_file("", "/usr/bin/karez").is_empty());
    }

    #[test]
    fn the_program_goes_on_after_it() {
        share_heaps();
        forget_start();
        let found = std::thread::spawn(|| of_file(SMAPS, "/usr/bin/karez").len());
        assert_eq!(found.join().unwrap(), 2);
    }
}
