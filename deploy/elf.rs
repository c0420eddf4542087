//! Whether a file is a program of this machine, and a whole one, by its headers and its size. A
//! truncated ELF file would start and die by SIGSEGV; saying so before is kinder.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::refused::Refused;

const MAGIC: &[u8] = b"\x7fELF";
/// How the programs of other systems begin.
const FOREIGN: [(&[u8], &str); 5] = [
    (b"\xcf\xfa\xed\xfe", "macOS"),
    (b"\xce\xfa\xed\xfe", "macOS"),
    (b"\xca\xfe\xba\xbe", "macOS, or Java classes"),
    (b"\xfe\xed\xfa", "macOS"),
    (b"MZ", "Windows"),
];
/// How to build for this machine.
const TARGET: &str =
    "build it for this machine (Rust: --target, Go: GOOS=linux and GOARCH, Docker: --platform)";
const TRUNCATED: &str = "copy it again, whole, and let the build end before deploying";

/// Look at a file that is to be run.
///
/// # Errors
/// If it is empty, cut off, built for another kind of machine, or no program at all.
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
    if let Some((_, system)) = FOREIGN.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(
            Refused::new(format!("{name}: a program for {system}, this is Linux")).hint(TARGET),
        );
    }
    if !head.starts_with(MAGIC) {
        return Err(Refused::new(format!(
            "{name}: not a program: it begins neither with ELF nor with #!"
        ))
        .hint("deploy the built executable, or a folder with its command: hotctl deploy ./folder -- node server.js"));
    }
    if let Some(machine) = machine(head).filter(|machine| !runs(*machine)) {
        return Err(Refused::new(format!(
            "{name}: built for {}, this machine is {}",
            machine_name(machine),
            std::env::consts::ARCH
        ))
        .hint(TARGET));
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

/// The loader that an ELF file asks for; `None` if it is static, or no ELF file.
pub(crate) fn loader(file: &File) -> Option<PathBuf> {
    /// The type of the segment that names it.
    const PT_INTERP: u64 = 3;
    let mut head = [0_u8; 64];
    let read = read_at(file, &mut head, 0).ok()?;
    let head = head.get(..read).filter(|head| head.starts_with(MAGIC))?;
    let wide = head.get(4) == Some(&2);
    let (phoff, phentsize, phnum) = match wide {
        true => (
            number(head, head, 32, 8)?,
            number(head, head, 54, 2)?,
            number(head, head, 56, 2)?,
        ),
        false => (
            number(head, head, 28, 4)?,
            number(head, head, 42, 2)?,
            number(head, head, 44, 2)?,
        ),
    };
    (0..phnum).find_map(|index| {
        let mut entry = [0_u8; 64];
        let at = phoff.saturating_add(index.saturating_mul(phentsize));
        read_at(file, &mut entry, at).ok()?;
        if number(head, &entry, 0, 4)? != PT_INTERP {
            return None;
        }
        let (offset, length) = match wide {
            true => (number(head, &entry, 8, 8)?, number(head, &entry, 32, 8)?),
            false => (number(head, &entry, 4, 4)?, number(head, &entry, 16, 4)?),
        };
        // No path is longer.
        let mut path = vec![0; usize::try_from(length.min(4096)).ok()?];
        let read = read_at(file, &mut path, offset).ok()?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(read));
        Some(OsString::from_vec(path).into())
    })
}

/// Whether a file is a program of some system, this one or another.
pub(crate) fn is_known(path: &Path) -> bool {
    let mut head = [0_u8; 4];
    let read = File::open(path).and_then(|file| read_at(&file, &mut head, 0));
    let head = head.get(..read.unwrap_or_default()).unwrap_or_default();
    head.starts_with(MAGIC) || FOREIGN.iter().any(|(magic, _)| head.starts_with(magic))
}

/// What an ELF file was built for: its `e_machine`.
fn machine(head: &[u8]) -> Option<u16> {
    u16::try_from(number(head, head, 18, 2)?).ok()
}

/// Whether programs for that kind of machine can run here: it is ours, or one that ours runs as well,
/// or somebody else runs them.
fn runs(machine: u16) -> bool {
    let ours: &[u16] = match std::env::consts::ARCH {
        "x86_64" => &[62, 3],
        "aarch64" => &[183, 40],
        "riscv64" => &[243],
        // Nothing is known of it: let the kernel say.
        _ => return true,
    };
    ours.contains(&machine) || is_emulated(machine)
}

/// Whether the kernel hands such programs to an emulator (binfmt_misc).
fn is_emulated(machine: u16) -> bool {
    let mut formats = fs::read_dir("/proc/sys/fs/binfmt_misc")
        .into_iter()
        .flatten()
        .flatten();
    formats
        .any(|format| fs::read_to_string(format.path()).is_ok_and(|text| emulates(&text, machine)))
}

/// `enabled`, and a line `magic 7f454c46...` with the machine at bytes 18 and 19.
fn emulates(format: &str, machine: u16) -> bool {
    let magic = format.lines().find_map(|line| line.strip_prefix("magic "));
    let is_its = |magic: &str| {
        let bytes = [machine.to_le_bytes(), machine.to_be_bytes()];
        let there = magic.get(36..40);
        magic.starts_with("7f454c46")
            && bytes
                .iter()
                .any(|[a, b]| there == Some(format!("{a:02x}{b:02x}").as_str()))
    };
    format.starts_with("enabled") && magic.is_some_and(is_its)
}

fn machine_name(machine: u16) -> String {
    let name = match machine {
        3 => "x86 (32 bit)",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm (32 bit)",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv",
        258 => "loongarch",
        other => return format!("another kind of machine (ELF {other})"),
    };
    name.into()
}

/// A number in a table of an ELF file, in the byte order that its first bytes say.
fn number(head: &[u8], bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = bytes.get(at..at + width)?;
    let digit = |sum: u64, byte: &u8| (sum << 8) | u64::from(*byte);
    Some(match head.get(5) == Some(&2) {
        true => field.iter().fold(0, digit),
        false => field.iter().rev().fold(0, digit),
    })
}

/// How many bytes the headers speak of; none if the headers themselves are cut off.
fn end(file: &File, head: &[u8]) -> io::Result<Option<u64>> {
    let wide = head.get(4) == Some(&2);
    let number = |bytes: &[u8], at, width| number(head, bytes, at, width);
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
    fn a_program_of_another_machine_is_told_from_one_of_ours() {
        let mut program = fs::read(std::env::current_exe().unwrap()).unwrap();
        // z/Architecture, in the byte order of the file.
        program[18..20].copy_from_slice(&22_u16.to_le_bytes());
        let refused = verdict(&program).unwrap_err();
        let ours = std::env::consts::ARCH;
        assert_eq!(
            refused.text,
            format!("app: built for s390x, this machine is {ours}")
        );
        let system = verdict(b"\xcf\xfa\xed\xfe and so on").unwrap_err().text;
        assert_eq!(system, "app: a program for macOS, this is Linux");
        assert!(verdict(b"MZ\x90").unwrap_err().text.contains("Windows"));
    }

    #[test]
    fn an_emulator_of_the_kernel_is_seen() {
        let format = "enabled\ninterpreter /usr/bin/qemu-aarch64\nflags: OCF\noffset 0\n\
            magic 7f454c460201010000000000000000000200b700\nmask ffff\n";
        assert!(emulates(format, 183));
        assert!(!emulates(format, 40));
        assert!(!emulates(&format.replace("enabled", "disabled"), 183));
        assert!(!emulates("enabled\n", 183));
    }

    #[test]
    fn the_loader_of_a_program_is_read() {
        let own = File::open("/bin/sh").unwrap();
        assert!(loader(&own).is_none_or(|path| path.exists()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app");
        fs::write(&path, "#!/bin/sh").unwrap();
        assert_eq!(loader(&File::open(&path).unwrap()), None);
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
