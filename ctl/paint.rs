//! Colours, used sparingly: what is good, what is bad, what needs a look. Painted text always has
//! them; the streams of `print` take them away where they are not wanted.

use anstyle::{AnsiColor, Style};

/// Live, healthy, done.
pub const GOOD: Style = AnsiColor::Green.on_default();
/// Failed, down, wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// Under way, or worth a look.
pub const LOOK: Style = AnsiColor::Yellow.on_default();
/// Headings, and what is only there to tell the rest apart.
pub const QUIET: Style = Style::new().dimmed();

/// The text in that style.
pub fn in_style(style: Style, text: &str) -> String {
    if style.is_plain() {
        return text.to_owned();
    }
    format!("{style}{text}{style:#}")
}

/// The word for the state of a service, a role or a health, in its colour.
pub fn of_word(word: &str) -> Style {
    match word {
        "serving" | "live" | "healthy" => GOOD,
        "down" | "failed" | "damaged" => BAD,
        "candidate" | "starting" | "stopped" | "parked" | "paused" | "maintenance"
        | "unhealthy" => LOOK,
        _ => Style::new(),
    }
}
