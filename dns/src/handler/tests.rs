//! Golden questions and answers.
