//! Dockerfiles and what they become.

mod faults;
mod sdk;
mod steps;
