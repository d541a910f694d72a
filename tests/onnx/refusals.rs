//! Graphs and stores that must not become a file.
