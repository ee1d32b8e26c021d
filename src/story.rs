//! For the unit tests only: what has happened so far, told when a test fails. It stands here since the engine, its tests included, prints nothing and asks
//! for no thread's state.

/// Lines that are printed if it is dropped while a test fails; a test that passes says nothing.
#[derive(Debug, Default)]
pub struct Story(Vec<String>);

impl Story {
    /// Begins anew: where a test is so long that nobody wants its beginning.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// What happens next.
    pub fn tell(&mut self, line: String) {
        self.0.push(line);
    }
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the story so far:\n{}", self.0.join("\n"));
        }
    }
}
