//! Whether a file is a program, and a whole one, by its first bytes and its size. A truncated ELF
//! file would start and die by SIGSEGV; saying so before is kinder.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::refused::Refused;

const MAGIC: &[u8] = b"\x7fELF";
const TRUNCATED: &str = "copy it again, whole, and let the build end before deploying";

/// Look at a file that is to be run.
///
/// # Errors
/// If it is empty, cut off, or no program at all.
pub fn check(file: &File, name: &str) -> Result<(), Refused> {
    let unreadable = |cause: io::Error| Refused::new(format!("{name}: {cause}"));
    let size = file.metadata().map_err(unreadable)?.len();
    let mut head = [0_u8; 64];
    let read = read_at(file, &mut head, 0).map_err(unreadable)?;
    let head = &head[..read];
    if head.is_empty() {
        return Err(Refused::new(format!("{name}: the file is empty")).hint(TRUNCATED));
    }
    if head.starts_with(b"#!") {
        return Ok(());
    }
    if !head.starts_with(MAGIC) {
        return Err(Refused::new(format!(
            "{name}: not a program: it begins neither with ELF nor with #!"
        ))
        .hint("deploy the built executable, or a folder with its command: hotctl deploy ./folder -- node server.js"));
    }
    let need = end(file, head).map_err(unreadable)?;
    match need {
        Some(need) if need <= size => Ok(()),
        Some(need) => Err(Refused::new(format!(
            "{name}: truncated: its ELF header speaks of {need} bytes, it has {size}"
        ))
        .hint(TRUNCATED)),
        None => {
            Err(Refused::new(format!("{name}: truncated within its ELF header")).hint(TRUNCATED))
        }
    }
}

/// How many bytes the headers speak of; none if the headers themselves are cut off.
fn end(file: &File, head: &[u8]) -> io::Result<Option<u64>> {
    let wide = head.get(4) == Some(&2);
    let big = head.get(5) == Some(&2);
    let number = |bytes: &[u8], at: usize, width: usize| -> Option<u64> {
        let field = bytes.get(at..at + width)?;
        let digit = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
        Some(if big {
            field.iter().fold(0, digit)
        } else {
            field.iter().rev().fold(0, digit)
        })
    };
    // Offsets of the fields of Elf32_Ehdr and Elf64_Ehdr (elf(5)).
    let fields = if wide {
        [(32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2)]
    } else {
        [(28, 4), (32, 4), (42, 2), (44, 2), (46, 2), (48, 2)]
    };
    let values: Option<Vec<u64>> = fields
        .iter()
        .map(|(at, width)| number(head, *at, *width))
        .collect();
    let Some([phoff, shoff, phentsize, phnum, shentsize, shnum]) = values.as_deref() else {
        return Ok(None);
    };
    let mut end = shoff.saturating_add(shentsize.saturating_mul(*shnum));
    end = end.max(phoff.saturating_add(phentsize.saturating_mul(*phnum)));
    // Each segment's bytes in the file: p_offset and p_filesz.
    let (offset, filesz, width) = if wide { (8, 32, 8) } else { (4, 16, 4) };
    for index in 0..*phnum {
        let mut entry = [0_u8; 64];
        let at = phoff.saturating_add(index.saturating_mul(*phentsize));
        let read = read_at(file, &mut entry, at)?;
        let entry = &entry[..read];
        if let (Some(from), Some(length)) =
            (number(entry, offset, width), number(entry, filesz, width))
        {
            end = end.max(from.saturating_add(length));
        }
    }
    Ok(Some(end))
}

fn read_at(file: &File, into: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        match file.read_at(&mut into[read..], at.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::fs;

    use super::*;

    fn verdict(bytes: &[u8]) -> Result<(), Refused> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app");
        fs::write(&path, bytes).unwrap();
        check(&File::open(path).unwrap(), "app")
    }

    #[test]
    fn a_program_is_a_program_at_any_length_but_its_own_only() {
        let whole = fs::read(std::env::current_exe().unwrap()).unwrap();
        verdict(&whole).unwrap();
        for length in [1, 4, 20, 63, 64, 1000, whole.len() / 2, whole.len() - 1] {
            let cut = verdict(&whole[..length]);
            assert!(cut.is_err(), "{length} of {} bytes were taken", whole.len());
        }
        let mut more = whole;
        more.extend_from_slice(b"appended");
        verdict(&more).unwrap();
    }

    #[test]
    fn a_script_is_a_program_and_a_text_is_none() {
        verdict(b"#!/bin/sh\n").unwrap();
        assert!(verdict(b"").unwrap_err().text.contains("empty"));
        assert!(
            verdict(b"hello")
                .unwrap_err()
                .text
                .contains("not a program")
        );
    }
}
