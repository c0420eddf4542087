//! hotctl: the whole product with its defaults. Pure.

use std::fmt::Write as _;

use super::peers::{Link, Log, Place};

/// Its configuration file.
pub fn configuration(place: &Place) -> String {
    let log = match place.setting.log {
        Log::Off => String::new(),
        Log::On => "access_log = \"access.log\"\n".to_string(),
    };
    let link = match place.setting.link {
        Link::Tcp => "",
        Link::Unix => "address = \"unix\"\n",
    };
    let mut text = format!(
        "{log}admin = \"{}\"\n[[listen]]\naddress = \"{}\"\n",
        place.admin, place.listen
    );
    match place.setting.routes {
        1 => {
            let _ = writeln!(text, "[service.web]\n{link}");
        }
        // The one that is asked for lies in the middle, and the others are not deployed. Each has a port
        // kept for it, and a deploy needs one more.
        routes => {
            text.insert_str(0, "ports = \"10000-29999\"\n");
            for n in 0..routes {
                let name = if n == routes / 2 {
                    "web".into()
                } else {
                    format!("s{n}")
                };
                let _ = writeln!(text, "[service.{name}]\nhosts = [\"h{n}.test\"]\n{link}");
            }
        }
    }
    text
}
