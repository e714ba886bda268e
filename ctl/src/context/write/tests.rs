//! Files that were written, read again.
