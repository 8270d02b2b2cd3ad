"""What the kernel says, and how it counts."""
