//! The receiver against targets and an allocator made here.
