//! Errors for logs.

/// An error and its causes in one line, outermost first. For the log, never for a client.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Because(&'static str, Option<Box<Because>>);

    impl fmt::Display for Because {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Because {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|cause| &**cause as _)
        }
    }

    #[test]
    fn causes_follow_in_order() {
        let last = Because("the disk is full", None);
        let middle = Because("cannot write", Some(Box::new(last)));
        let first = Because("no sandbox", Some(Box::new(middle)));
        assert_eq!(chain(&first), "no sandbox: cannot write: the disk is full");
    }
}
