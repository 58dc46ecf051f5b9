//! The few signs of the dashboard, drawn in the text's colour. Each goes with a word: none is read out.

use maud::{Markup, PreEscaped, html};

/// A sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Icon {
    /// A disc with a tick: all is well.
    Good,
    /// A ring with a moving part: under way.
    Busy,
    /// A disc with a cross: it failed.
    Bad,
    /// A triangle: it fails again and again.
    Alarm,
    /// A pin: kept where it is.
    Held,
    /// Two bars: frozen.
    Paused,
    /// A square: stopped.
    Stopped,
    /// A ring: not yet, or no more.
    Idle,
    /// A ring with a stroke: given up, skipped.
    Passed,
    /// An arrow out of a box: leads to another site.
    Out,
}

/// All drawings, once in each page; a sign refers to one of them.
pub const SIGNS: PreEscaped<&str> = PreEscaped(include_str!("assets/signs.svg"));

impl Icon {
    /// The sign.
    pub fn draw(self) -> Markup {
        let name = match self {
            Icon::Good => "good",
            Icon::Busy => "busy",
            Icon::Bad => "bad",
            Icon::Alarm => "alarm",
            Icon::Held => "held",
            Icon::Paused => "paused",
            Icon::Stopped => "stopped",
            Icon::Idle => "idle",
            Icon::Passed => "passed",
            Icon::Out => "out",
        };
        html! { svg.i.spin[self == Icon::Busy] aria-hidden="true" { use href={ "#i-" (name) } {} } }
    }
}
