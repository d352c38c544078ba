//! Integration tests of sockleak: real crashes, judged by the kernel.
