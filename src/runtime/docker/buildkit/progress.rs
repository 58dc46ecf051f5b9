//! What BuildKit reports, as lines that people read from top to bottom.
//!
//! BuildKit tells of a step whenever something of it changes, and of several at once. Each is told here when it begins, with
//! its number before what it writes, and again when it has failed.

use std::collections::HashMap;

use super::Told;
use super::messages::{StatusResponse, Vertex};

/// Steps that are remembered; a Dockerfile has some dozens.
const STEPS: usize = 10_000;
/// A line without an end is told in parts of this many bytes.
const LINE: usize = 16 * 1024;

/// What has been told.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Steps that have begun, by their digest.
    steps: HashMap<String, Step>,
}

#[derive(Debug)]
struct Step {
    number: usize,
    /// Written, and not yet ended by a line's end.
    held: Vec<u8>,
    over: bool,
}

impl Progress {
    /// What is new.
    pub(super) fn take(&mut self, status: StatusResponse) -> Vec<Told> {
        let mut told = Vec::new();
        // A step's last output comes along with its end.
        let (over, going): (Vec<_>, Vec<_>) =
            status.vertexes.into_iter().partition(|vertex| vertex.completed.is_some() || !vertex.error.is_empty());
        for vertex in going.iter().chain(&over) {
            self.begin(vertex, &mut told);
        }
        for log in status.logs {
            if let Some(step) = self.steps.get_mut(&log.vertex) {
                step.write(&log.msg, &mut told);
            }
        }
        for vertex in over {
            self.end(&vertex, &mut told);
        }
        for warning in status.warnings {
            told.push(Told::Line(format!("warning: {}", String::from_utf8_lossy(&warning.short))));
        }
        told
    }

    fn begin(&mut self, vertex: &Vertex, told: &mut Vec<Told>) {
        let begun = vertex.started.is_some() || vertex.cached || !vertex.error.is_empty();
        if !begun || self.steps.contains_key(&vertex.digest) || self.steps.len() >= STEPS {
            return;
        }
        let number = self.steps.len() + 1;
        self.steps.insert(vertex.digest.clone(), Step { number, held: Vec::new(), over: false });
        let cached = if vertex.cached { " (cached)" } else { "" };
        told.push(Told::Line(format!("#{number} {}{cached}", vertex.name)));
        if !vertex.cached {
            told.push(Told::Step(vertex.name.clone()));
        }
    }

    fn end(&mut self, vertex: &Vertex, told: &mut Vec<Told>) {
        let Some(step) = self.steps.get_mut(&vertex.digest) else { return };
        step.flush(told);
        if !std::mem::replace(&mut step.over, true) && !vertex.error.is_empty() {
            told.push(Told::Line(format!("#{} failed: {}", step.number, vertex.error)));
        }
    }
}

impl Step {
    fn write(&mut self, bytes: &[u8], told: &mut Vec<Told>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.held.extend_from_slice(part);
            if part.ends_with(b"\n") || self.held.len() >= LINE {
                self.flush(told);
            }
        }
    }

    fn flush(&mut self, told: &mut Vec<Told>) {
        let text = String::from_utf8_lossy(&self.held).trim_end().to_owned();
        self.held.clear();
        if !text.is_empty() {
            told.push(Told::Line(format!("#{} {text}", self.number)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages::{Timestamp, VertexLog};
    use super::*;

    fn vertex(digest: &str, name: &str, change: impl FnOnce(&mut Vertex)) -> StatusResponse {
        let mut vertex = Vertex { digest: digest.to_owned(), name: name.to_owned(), ..Vertex::default() };
        change(&mut vertex);
        StatusResponse { vertexes: vec![vertex], ..StatusResponse::default() }
    }

    fn log(digest: &str, text: &str) -> StatusResponse {
        let log = VertexLog { vertex: digest.to_owned(), msg: text.as_bytes().to_vec() };
        StatusResponse { logs: vec![log], ..StatusResponse::default() }
    }

    fn now() -> Option<Timestamp> {
        Some(Timestamp::default())
    }

    #[test]
    fn steps_are_told_once_with_what_they_write_in_whole_lines() {
        let mut progress = Progress::default();
        let mut told = Vec::new();
        for status in [
            vertex("a", "[1/2] FROM base", |_| {}),
            vertex("a", "[1/2] FROM base", |vertex| vertex.cached = true),
            vertex("b", "[2/2] RUN make", |vertex| vertex.started = now()),
            log("b", "one\ntw"),
            vertex("b", "[2/2] RUN make", |vertex| vertex.started = now()),
            log("b", "o\nthree"),
            log("unknown", "nothing\n"),
            vertex("b", "[2/2] RUN make", |vertex| {
                (vertex.started, vertex.completed) = (now(), now());
                vertex.error = "exit code: 2".to_owned();
            }),
        ] {
            told.extend(progress.take(status));
        }
        let line = |text: &str| Told::Line(text.to_owned());
        assert_eq!(
            told,
            [
                line("#1 [1/2] FROM base (cached)"),
                line("#2 [2/2] RUN make"),
                Told::Step("[2/2] RUN make".to_owned()),
                line("#2 one"),
                line("#2 two"),
                line("#2 three"),
                line("#2 failed: exit code: 2"),
            ]
        );
    }

    #[test]
    fn a_step_that_is_over_when_it_is_first_heard_of_is_told_with_its_output() {
        let mut progress = Progress::default();
        let mut status = vertex("a", "RUN x", |vertex| (vertex.started, vertex.completed) = (now(), now()));
        status.logs.extend(log("a", "out").logs);
        let told = progress.take(status);
        assert_eq!(told.last(), Some(&Told::Line("#1 out".to_owned())), "{told:?}");
    }
}
