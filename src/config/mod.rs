//! The configuration: from the text of a file to a model that is valid by construction, or every error in it at once.

pub mod model;
