//! What a line of a build or an app may do to the terminal it is shown on: have colours. Clearing the
//! screen, moving about, titles and links are for a terminal of its own. Knows no line of ours.

/// Ends what a line has begun.
const RESET: &str = "\x1b[0m";

/// The line with its colours and without all else that steers a terminal. Of what was written over
/// itself, as progress bars are, what stood there last. Colours end with the line.
pub fn only_colours(line: &str) -> String {
    let line = line.trim_end_matches('\r');
    let line = line.rsplit('\r').next().unwrap_or(line);
    let mut out = String::with_capacity(line.len());
    let mut coloured = false;
    let mut rest = line.chars().peekable();
    while let Some(sign) = rest.next() {
        let begun = match sign {
            '\x1b' => rest.next(),
            // The same in one sign.
            '\u{80}'..='\u{9f}' => char::from_u32(u32::from(sign) - 0x40),
            '\t' => {
                out.push(sign);
                continue;
            }
            _ if sign.is_control() => continue,
            _ => {
                out.push(sign);
                continue;
            }
        };
        match begun {
            Some('[') => {
                let mut what = String::new();
                let end = rest.find(|sign| {
                    what.push(*sign);
                    ('@'..='~').contains(sign)
                });
                let numbers = what.trim_end_matches('m');
                let is_colour = numbers
                    .chars()
                    .all(|it| it.is_ascii_digit() || it == ';' || it == ':');
                if end == Some('m') && is_colour {
                    out.push_str("\x1b[");
                    out.push_str(&what);
                    coloured = !matches!(numbers.trim_start_matches('0'), "");
                }
            }
            // Texts for the terminal: up to BEL or `ESC \`.
            Some(']' | 'P' | 'X' | '^' | '_') => {
                while let Some(sign) = rest.next() {
                    if matches!(sign, '\x07' | '\u{9c}') {
                        break;
                    }
                    if sign == '\x1b' {
                        rest.next_if_eq(&'\\');
                        break;
                    }
                }
            }
            // Signs between, then the one that says what is meant.
            Some(' '..='/') => drop(rest.find(|sign| !(' '..='/').contains(sign))),
            _ => {}
        }
    }
    if coloured {
        out.push_str(RESET);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::only_colours;

    #[test]
    fn colours_stay_and_all_else_that_steers_a_terminal_goes() {
        for (line, shown) in [
            ("plain: ü\ttab", "plain: ü\ttab"),
            ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
            ("\x1b[1;38;2;9;9;9mrgb\x1b[m", "\x1b[1;38;2;9;9;9mrgb\x1b[m"),
            ("\x1b[4:3mwavy", "\x1b[4:3mwavy\x1b[0m"),
            ("\x1b[31mopen", "\x1b[31mopen\x1b[0m"),
            ("\x1bc\x1b[2J\x1b[H\x1b[3Jcleared", "cleared"),
            ("\x1b[1A\x1b[2K\x1b[10;20Hmoved", "moved"),
            ("\x1b[?1049h\x1b[?25lalone", "alone"),
            ("\x1b[>4;2mkeys\x1b[?1m", "keys"),
            ("\x1b]0;a title\x07shown", "shown"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            ("\x1bP1$r\x1b\\\x1b_app\x07x", "x"),
            ("\u{9b}2J\u{9d}0;t\u{9c}one", "one"),
            ("\x1b(B\x1b)0\x1b7\x1b=set", "set"),
            ("bell\x07 back\x08", "bell back"),
            ("10 %\r50 %\r100 %\r", "100 %"),
            ("dos\r", "dos"),
            ("cut off \x1b[31", "cut off "),
            ("cut off \x1b", "cut off "),
            ("cut off \x1b]0;t", "cut off "),
            ("", ""),
        ] {
            assert_eq!(only_colours(line), shown, "{line:?}");
        }
    }
}
