//! Orders that wait their turn: one runs, at most one waits, and the newest takes the place of the
//! one waiting. Pure.

/// A queue of one.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: Option<T>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { waiting: None }
    }
}

impl<T> Queue<T> {
    /// Let `order` wait. Returns the one whose place it takes.
    pub fn wait(&mut self, order: T) -> Option<T> {
        self.waiting.replace(order)
    }

    /// Whose turn it is.
    pub fn take(&mut self) -> Option<T> {
        self.waiting.take()
    }

    /// Who waits.
    pub fn waiting(&self) -> Option<&T> {
        self.waiting.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn the_newest_order_takes_the_place_of_the_one_waiting() {
        let mut queue = Queue::default();
        assert_eq!(queue.wait("a"), None);
        assert_eq!(queue.wait("b"), Some("a"));
        assert_eq!(queue.waiting(), Some(&"b"));
        assert_eq!(queue.take(), Some("b"));
        assert_eq!(queue.take(), None);
    }
}
