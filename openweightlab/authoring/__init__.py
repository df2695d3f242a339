"""From text to notebooks: reading a source, its rules, and the release to students."""
