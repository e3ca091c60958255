//! What the in-sandbox agent needs of the kernel: spawning user processes, terminals, init duties.
